"""Distributions of codes, fitted to those of the training examples after training, from which samples are drawn."""
