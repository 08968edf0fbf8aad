"""Long work for many people: jobs, a fair scheduler, a bounded cache. No torch, no Streamlit."""
