"""The groups of `make bench-compress`, one file each."""
