"""Comparison of runs: which is better, by more than the noise."""
