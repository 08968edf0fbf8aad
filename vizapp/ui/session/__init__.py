"""The session of one user: state, forms, cached results, messages, downloads, access."""
