"""A search on a Ray cluster of two nodes, both on this machine, one of which has a "board".

    python examples/ray_cluster/search.py [ARCHIVE]

Perceptrons of several widths, depths and weight formats are trained on the digits that
scikit-learn brings. Every evaluation asks for a cortex-m4, so Ray sends it to the node that has
one. Run again with the same archive, the search evaluates nothing twice.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgesmith.nas.archive import Archive
from edgesmith.nas.driver import search
from edgesmith.nas.executors.base import Choices, Evaluation
from edgesmith.nas.executors.ray import Ray
from edgesmith.nas.samplers.random import Random
from edgesmith.nas.space import Candidate, Gene, Moot, Space
from edgesmith.nas.values import Constraint, Found, Metrics, Objective, Proposal, Task
from edgesmith.pipeline.stage import SilentProgress

BOARD = "cortex-m4"
PIXELS, CLASSES = 64, 10
SPACE = Space(
    (
        Gene("width:hidden", (64, 32, 16, 8)),
        Gene("depth:second", (1, 0)),
        Gene("weights:all", ("int8", "int4", "int3", "int2")),
        Gene("weights:second", ("int8", "int4", "int3", "int2")),
    ),
    (Moot("depth:second", 0, ("weights:second",)),),
)


def shapes(choices: Choices) -> list[tuple[int, int]]:
    """Of the weights of every layer, [inputs, outputs]."""
    width = int(choices["width:hidden"])
    second = [(width, width)] if choices["depth:second"] else []
    return [(PIXELS, width), *second, (width, CLASSES)]


def bits(choices: Choices) -> list[int]:
    """Per weight of every layer."""
    every, second = (int(str(choices[f"weights:{each}"])[3:]) for each in ("all", "second"))
    return [every, second, every] if choices["depth:second"] else [every, every]


def weight_bytes(candidate: Candidate) -> Metrics:
    """Exact, so no evaluation is needed."""
    choices = SPACE.choices(candidate)
    pairs = zip(shapes(choices), bits(choices), strict=True)
    return {"weight_bytes": sum(rows * columns * each for (rows, columns), each in pairs) / 8}


def make() -> Evaluation:
    """Called once per worker: the digits are loaded here."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        images / 16, labels, test_size=0.5, random_state=0, stratify=labels
    )

    def evaluate(choices: Choices) -> Metrics:
        hidden = [columns for _, columns in shapes(choices)[:-1]]
        model = MLPClassifier(hidden, max_iter=60, random_state=0, tol=0.0, n_iter_no_change=60)
        model.fit(train, train_labels)
        for weights, each in zip(model.coefs_, bits(choices), strict=True):
            scale = np.abs(weights).max() / (2 ** (each - 1) - 1)
            weights[:] = np.round(weights / scale) * scale
        return {"accuracy": float(model.score(test, test_labels))}

    return evaluate


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster of a node with nothing but cores, and one with a board; this process joins it.

    Yields:
        Ray's `Cluster`, to which more nodes can be added.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1, resources={BOARD: 1})
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def found_on_the_board(path: Path, evaluations: int = 16) -> Found:
    """The search, with its evaluations in the file `path`."""
    task = Task(
        space=SPACE,
        objectives=(Objective("accuracy", "higher"), Objective("weight_bytes", "lower")),
        constraints=(Constraint("weight_bytes", "most", 4096),),
        computed=weight_bytes,
        seeds=(
            Proposal((0, 0, 0, 0), "seed: largest"),
            Proposal(SPACE.canonical((3, 1, 3, 0)), "seed: smallest"),
        ),
        evaluations=evaluations,
        seed=0,
    )
    executor = Ray(resources={BOARD: 1})
    with Archive.opened(path, SPACE, {"data": "digits", "model": "perceptron"}) as archive:
        return search(task, Random(batch=4), make, executor, archive, SilentProgress())


def main(path: Path) -> None:
    """Search, and print the front."""
    with two_nodes():
        found = found_on_the_board(path)
    for number in found.front:
        trial = found.trials[number]
        chosen = "  <- chosen" if number == found.chosen else ""
        shown = " ".join(f"{gene}={choice}" for gene, choice in trial.choices.items())
        accuracy, size = 100 * trial.metrics["accuracy"], trial.metrics["weight_bytes"]
        print(f"{accuracy:5.1f} % {size:6.0f} bytes  {shown}{chosen}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder, "evaluations.jsonl"))
