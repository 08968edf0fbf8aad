"""One person's session: state, forms, answers, messages, downloads, access."""
