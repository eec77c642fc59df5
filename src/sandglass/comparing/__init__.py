"""Runs side by side: which is better, by more than the noise."""
