"""Microcontroller targets: tool chain, emulator, instruction counts, boards."""
