"""Samplers: one file each, its stem is the name in a spec."""
