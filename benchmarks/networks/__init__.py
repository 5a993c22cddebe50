"""Small networks that benchmarks train themselves."""
