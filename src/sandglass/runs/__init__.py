"""The run folder: its files, weights, configuration and how they are checked."""
