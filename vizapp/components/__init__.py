"""The browser components: a script and a stylesheet each, mounted by the app and written into reports, and their data."""
