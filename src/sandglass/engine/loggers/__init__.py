"""Where a run's figures are copied to beside its own log; one logger a file."""
