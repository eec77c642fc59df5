"""The sections of the report, one per file, each registered with its position on the page."""
