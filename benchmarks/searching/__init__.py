"""The groups of `make bench-search`, one file each."""
