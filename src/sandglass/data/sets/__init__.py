"""Registered datasets, one family per file."""
