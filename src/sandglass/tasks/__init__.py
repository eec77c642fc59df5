"""Tasks, the uses of a trained model, one per file: generate, reconstruct, encode and others."""
