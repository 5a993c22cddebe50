"""Mixed precision by integer programming, against one format everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from deployments import deploy, percent, variant
from rows import Row

from compression.formats import LEARNED
from edgesmith.pipeline.results import DeploymentResult

SEEDS = (0, 1, 2)
"""Of learned rounding, the only randomness; figures are means over them."""
SHARE = 0.6
TARGET = "cpu-litert"
PACKED = "c-host"


def mixed(folder: Path) -> Iterator[Row]:
    """IC at 60 % of INT8's weight bytes, rounding to nearest and learned."""
    weight_bytes = {
        "int8": _weight_bytes(_run("ic-int8", folder, {"weights": "int8"})),
    }
    whole = percent(_run("ic-int8", folder, {"weights": "int8"}), "deployed")
    allocation = {
        "stage": "allocate",
        "weights": ["int8", "int4"],
        "budget_share": {"weight-bytes": SHARE},
        "measure_front": False,
    }
    for name, more, seeds in (("nearest", {}, SEEDS[:1]), ("learned", LEARNED, SEEDS)):
        narrow = [
            _run(f"ic-int4-{name}-{seed}", folder, {"weights": "int4", **more}, seed=seed)
            for seed in seeds
        ]
        chosen = [
            _run(f"ic-mixed-{name}-{seed}", folder, more, allocation, seed=seed) for seed in seeds
        ]
        title = f"IC, {name} rounding, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
        uniform, ours = (mean(percent(r, "deployed") for r in each) for each in (narrow, chosen))
        share = max(_weight_bytes(r) for r in chosen) / weight_bytes["int8"]
        yield Row(f"{title}: uniform W4A8", uniform, "%")
        yield Row(f"{title}: mixed by ILP", ours, "%")
        yield Row(f"{title}: mixed, share of INT8's weight bytes", share, "", goal=SHARE)
        yield Row(f"{title}: mixed above W4A8", ours - uniform, "points", goal=0, better="higher")
        goal = 0.5 if more else None
        yield Row(f"{title}: mixed below INT8", whole - ours, "points", goal=goal)
    yield from _equal_size(folder)


def _equal_size(folder: Path) -> Iterator[Row]:
    """Where 2 bits are stored as such: not a byte more than W4A8, learned rounding."""
    uniform = _run("ic-packed-int4", folder, {"weights": "int4", **LEARNED}, target=PACKED)
    size = _weight_bytes(uniform)
    allocation = {
        "stage": "allocate",
        "weights": ["int8", "int4", "int2"],
        "budget": {"weight-bytes": size},
        "measure_front": False,
    }
    ours = _run("ic-packed-mixed", folder, LEARNED, allocation, target=PACKED)
    title = f"IC, learned rounding, 1 seed, on {PACKED}"
    yield Row(
        f"{title}: mixed, share of W4A8's weight bytes", _weight_bytes(ours) / size, "", goal=1
    )
    above = percent(ours, "deployed") - percent(uniform, "deployed")
    yield Row(f"{title}: mixed above W4A8 of the same size", above, "points", better="higher")


def _run(
    name: str,
    folder: Path,
    quantize: Mapping[str, Any],
    *before: Mapping[str, Any],
    seed: int = 0,
    target: str = TARGET,
) -> DeploymentResult:
    stages = [*before, {"stage": "quantize", **quantize}]
    return deploy(variant("ic", name, folder, stages, [target], seed=seed), folder)[target]


def _weight_bytes(result: DeploymentResult) -> int:
    """Of weights as files store them, without biases and scales."""
    return sum(layer.formats.code_bytes for layer in result.layers if layer.formats)
