"""Long work for many users: jobs, a fair scheduler, a bounded cache. Imports neither torch nor Streamlit."""
