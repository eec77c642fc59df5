"""Searching over options: many runs, chosen by their validation split."""
