"""How much a channel matters: one importance per file, found by its name."""
