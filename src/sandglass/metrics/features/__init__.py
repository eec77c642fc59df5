"""Where the features come from that samples and examples are compared by, one source a file."""
