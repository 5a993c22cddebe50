"""One thread: with more, sums come out in another order, and the search takes another course."""

from __future__ import annotations

from contextlib import AbstractContextManager

from threadpoolctl import threadpool_limits


def one_thread() -> AbstractContextManager[object]:
    """For linear algebra and scikit-learn, until it is left."""
    limited: AbstractContextManager[object] = threadpool_limits(1)
    return limited
