"""Neural Compressor's static INT8 and its tuning loop, beside this pipeline's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deployments import deploy, percent, variant
from peers.neural_compressor import MODELS, side_by_side
from rows import Row

TARGET = "cpu-litert"
TUNE = {"max_trials": 4, "tolerable_loss_percent": 0.1}


def engine(folder: Path) -> Iterator[Row]:
    """IC and KWS: accuracy and interleaved latency, and what tuning finds within four trials."""
    for name in MODELS:
        found = side_by_side(name)
        title, ours = found.title, found.ours[TARGET]
        yield Row(f"{title}: Neural Compressor INT8", found.percent, "%")
        yield Row(f"{title}: Neural Compressor INT8, {found.form}", found.milliseconds, "ms")
        yield Row(f"{title}: ours", ours.percent, "%", goal=found.percent, better="higher")
        for target, each in found.ours.items():
            goal = 1.0 if target == TARGET else None
            title_of = f"{title}: ours on {target}, time over Neural Compressor's"
            yield Row(title_of, each.over_peer, "x", goal=goal)
        tuned = {
            "stage": "quantize",
            "engine": "neural-compressor",
            "neural_compressor": {"tune": TUNE},
        }
        spec = variant(name, f"{name}-tuned", folder, [tuned], [TARGET])
        accuracy = percent(deploy(spec, folder)[TARGET], "deployed")
        yield Row(f"{title}: Neural Compressor's tuning loop, deployed", accuracy, "%")
