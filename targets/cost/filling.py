"""Filling a table: missing entries are measured in batches, shared with other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.targets.cost.base import Filled, Progress
from edgesmith.targets.cost.table import Keyed, R, Table

Item = TypeVar("Item", bound=Keyed)


@dataclass(frozen=True)
class Filling(Generic[Item, R]):
    """How entries of one table come to be.

    Args:
        batches: cuts items that are missing into what is measured together.
        measure: one batch; a record per item. What its `ToolFailedError` blames on a batch is
            looked for in halves of it.
        title: of an item, in an error.
    """

    table: Table[R]
    batches: Callable[[Sequence[Item]], Iterable[Sequence[Item]]]
    measure: Callable[[Sequence[Item]], Iterable[R]]
    title: Callable[[Item], str]

    def fill(self, wanted: Mapping[str, Item], progress: Progress | None = None) -> Filled:
        """Measure what nobody has; what another process is measuring is waited for.

        Raises:
            ToolFailedError: an item cannot be measured, and is named.
            CacheError: the table cannot be written.
        """
        measured = runs = 0
        while missing := self.missing(wanted):
            count = self._measure_some(missing)
            measured, runs = measured + count, runs + (count > 0)
            if progress is not None:
                progress(len(wanted) - len(self.missing(wanted)), len(wanted))
        return Filled(len(wanted), measured, runs)

    def missing(self, wanted: Mapping[str, Item]) -> list[Item]:
        """What this process does not know yet."""
        return [item for item in wanted.values() if not self._knows(item)]

    def _knows(self, item: Item) -> bool:
        return self.table.get(item.key) is not None

    def _measure_some(self, missing: Sequence[Item]) -> int:
        """One batch of what no other process is measuring; where they measure all, wait."""
        for wait in (False, True):
            for batch in self.batches(missing):
                with self.table.claimed((each.key for each in batch), wait=wait) as mine:
                    self.table.reload()  # another process may have measured them meanwhile
                    own = [each for each in batch if each.key in mine and not self._knows(each)]
                    if own:
                        self._measure(own)
                    if own or wait:
                        return len(own)
        return 0

    def _measure(self, items: Sequence[Item]) -> None:
        """Measure and keep items; where their batch fails, halves of it, down to the culprit."""
        try:
            self.table.store(self.measure(items))
        except ToolFailedError as error:
            if len(items) == 1:
                raise ToolFailedError(
                    f"the cost of {self.title(items[0])} cannot be measured: {error.message}",
                    fix=error.fix,
                ) from error
            middle = len(items) // 2
            self._measure(items[:middle])
            self._measure(items[middle:])
