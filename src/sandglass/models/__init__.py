"""Objective families, one a file. Adding a model touches that file alone."""
