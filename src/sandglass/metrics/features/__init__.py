"""Feature extractors for comparing samples with examples, one per file."""
