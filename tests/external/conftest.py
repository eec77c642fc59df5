"""The package here is installed by tests/system/test_external.py; its files register things when they are imported."""

collect_ignore_glob = ["sandglass_extra/*"]
