"""Quantization-aware training: integers that are trained, from those found after training."""
