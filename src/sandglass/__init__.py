"""Sandglass: generative models of a person's own images and tables."""

__version__ = "0.1.0"
