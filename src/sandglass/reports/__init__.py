"""Self-contained report pages of runs, and their figures."""
