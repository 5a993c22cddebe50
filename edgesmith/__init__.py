"""edgesmith: a trained PyTorch model becomes a verified integer deployment for each device.

This package is the import root and nothing else; the rooms are
`edgesmith.pipeline`, `edgesmith.quantize`, `edgesmith.prune`, `edgesmith.nas`,
`edgesmith.targets` and `edgesmith.reports`.
"""

__version__ = "0.1.0"
