"""One Ray cluster for the tests of a module, the example's, started when the first one needs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.examples.loading import example


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray")
    with example("ray_cluster", "search.py:two_nodes")() as made:
        yield made
