"""Experiment trackers that the figures of a run are copied to; one a file."""
