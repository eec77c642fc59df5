"""Metrics, one per file: each takes a model and a split and returns figures with n, a standard error and a unit."""
