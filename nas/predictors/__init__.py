"""Predictors of an objective: one file each."""
