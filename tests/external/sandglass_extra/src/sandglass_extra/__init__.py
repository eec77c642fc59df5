"""A model, a net, a metric, a task and a section of the report, added to Sandglass by entry points."""
