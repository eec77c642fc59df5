"""The sections of the report, one a file, each registered with its place on the page."""
