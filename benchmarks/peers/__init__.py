"""Engines that benchmarks stand beside: how to run them here, and what was found elsewhere."""
