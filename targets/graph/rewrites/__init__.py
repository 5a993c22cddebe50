"""Rewrites that make an IntegerGraph legal for a target; one module per concern."""
