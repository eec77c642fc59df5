"""What is in a source, looked at before anything is trained on it."""
