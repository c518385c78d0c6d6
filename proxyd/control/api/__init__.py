"""The admin API: what may be called, by whom, and what it does."""
