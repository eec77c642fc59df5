"""Network families, one a file, each in both directions and for any example shape."""
