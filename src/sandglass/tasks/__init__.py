"""The uses of a trained model, one a file, each registered: generate, reconstruct, encode, and so on."""
