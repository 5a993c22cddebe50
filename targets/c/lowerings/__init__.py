"""How each IntegerGraph operator becomes one C call; one file per family of operators."""
