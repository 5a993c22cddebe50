"""Training that the pipeline does by itself: after pruning, and of quantized networks."""
