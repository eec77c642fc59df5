"""Schedules for loss weights and the learning rate, one family per file."""
