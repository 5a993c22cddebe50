"""IntegerGraph: the integer IR, its readers and writers, legalizer and reference executor."""
