"""Inspection of a data source before training."""
