"""One thread, as for pruning."""

from tests.prune.conftest import _one_thread

__all__ = ["_one_thread"]
