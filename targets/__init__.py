"""Base protocol of targets and one file per target."""
