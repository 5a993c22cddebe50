"""The tools of `brevitas.graph` that are used here, imported without their warning.

Importing that package warns about an optional kernel and about itself.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from brevitas.graph.calibrate import bias_correction_mode
    from brevitas.graph.equalize import EqualizeGraph

__all__ = ["EqualizeGraph", "bias_correction_mode"]
