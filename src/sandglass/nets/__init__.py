"""Network families, one per file: encoders and decoders for any example shape."""
