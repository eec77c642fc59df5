"""Hyperparameter search: many runs, compared on the validation split."""
