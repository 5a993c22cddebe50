"""Tests of `edgesmith.quantize`."""
