"""Search space, super-network, samplers, predictors, archive."""
