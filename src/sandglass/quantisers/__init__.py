"""Quantisers: what turns vectors of real numbers into whole numbers and back, one family a file."""
