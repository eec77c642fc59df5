"""Factors that follow time, one family a file: for a weight in a loss, and for the learning rate."""
