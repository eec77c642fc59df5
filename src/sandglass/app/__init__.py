"""The command line: one file per group of commands, with heavy imports deferred until a command runs."""
