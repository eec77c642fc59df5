"""The run folder: files, weights, configuration and their verification."""
