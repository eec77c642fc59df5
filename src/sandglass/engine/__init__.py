"""The one training loop: steps over phases, schedules, precision, signals, checkpoints."""
