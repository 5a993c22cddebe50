"""Coupled groups, importance criteria, sparsity patterns."""
