"""One Ray cluster for all tests, the example's, started when the first one needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.examples.loading import example


@pytest.fixture(scope="session")
def _cluster() -> Iterator[None]:
    pytest.importorskip("ray")
    with example("ray_cluster", "search.py:two_nodes")():
        yield
