"""What every benchmark writes: rows of measured figures against goals, as JSON and as a table."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.own_source import own_source_digest
from edgesmith.pipeline.versions import installed, machine

RESULTS = Path(__file__).parent / "results"
_SYSTEM = "system"


@dataclass(frozen=True)
class Row:
    """One figure. `goal` None states the figure without judging it: `met` is None then, unless the
    figure is no number.
    """

    id: str
    value: float
    unit: str
    kind: Literal["measured", "simulated", "estimated"] = "measured"
    goal: float | None = None
    better: Literal["lower", "higher"] = "lower"
    met: bool | None = field(init=False)

    def __post_init__(self) -> None:
        met: bool | None = None
        if math.isnan(self.value):
            met = False
        elif self.goal is not None:
            met = self.value <= self.goal if self.better == "lower" else self.value >= self.goal
        object.__setattr__(self, "met", met)

    @property
    def missed(self) -> bool:
        """It is below its goal, or no number."""
        return self.met is False


def _shown(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.6g}"


def publish(name: str, rows: Iterable[Row], versions: Mapping[str, str] | None = None) -> bool:
    """Write `results/NAME.json`, print the table; whether every goal is met.

    Args:
        versions: of what the figures depend on beside the packages of every benchmark.
    """
    found = list(rows)
    _write(name, versions or {}, {"rows": [asdict(row) for row in found]})
    return _print(name, found)


def publish_groups(
    name: str,
    groups: Mapping[str, Callable[[], Iterable[Row]]],
    chosen: Sequence[str],
    versions: Mapping[str, str],
) -> bool:
    """As `publish`, of a benchmark whose groups can be measured one at a time.

    The file keeps what earlier runs measured in other groups, with the same machine and versions;
    every row names its group, a digest of edgesmith's source as it was then, and the system, which
    may be of another build. The file is written after each group, so that a long run that is cut
    off is not lost.

    Returns:
        Whether every group was measured and every goal is met.
    """
    kept = _kept(name, versions)
    for group in chosen:
        more = {
            "group": group,
            "source": own_source_digest()[:12],
            _SYSTEM: machine()[_SYSTEM],
        }
        kept[group] = [asdict(row) | more for row in groups[group]()]
        kept = {each: kept[each] for each in groups if each in kept}
        _write(name, versions, {"rows": [row for rows in kept.values() for row in rows]})
    missing = [group for group in groups if group not in kept]
    if missing:
        print(f"not measured: {', '.join(missing)}", file=sys.stderr)
    met = _print(name, [_row(each) for rows in kept.values() for each in rows])
    return met and not missing


def header(versions: Mapping[str, str]) -> dict[str, Any]:
    """The machine and the packages that figures rest on.

    Args:
        versions: of packages beside those of every benchmark.
    """
    return {"machine": machine(), "versions": installed() | dict(versions)}


def _write(name: str, versions: Mapping[str, str], rows: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(header(versions) | rows, indent=2)
    write_atomically(RESULTS / f"{name}.json", (text + "\n").encode())


def _kept(name: str, versions: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """What the file of a benchmark says, by group, if this machine and these versions wrote it."""
    path = RESULTS / f"{name}.json"
    found: dict[str, list[dict[str, Any]]] = {}
    if not path.exists():
        return found
    document = json.loads(path.read_text())
    if _compared(document) != _compared(header(versions)):
        print(
            f"{path.name} is of another machine or other versions: measured anew", file=sys.stderr
        )
        return found
    for row in document["rows"]:
        row.setdefault(_SYSTEM, document["machine"][_SYSTEM])  # older records name it once
        found.setdefault(row["group"], []).append(row)
    return found


def _compared(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """What figures that stand side by side share: of the system, its name, not its build."""
    here: dict[str, str] = document["machine"]
    return [here | {_SYSTEM: here[_SYSTEM].partition(" ")[0]}, document["versions"]]


def _row(data: Mapping[str, Any]) -> Row:
    return Row(**{each.name: data[each.name] for each in fields(Row) if each.init})


def _print(name: str, found: Sequence[Row]) -> bool:
    table = Table("figure", "value", "goal", "unit", "kind", "met", title=f"bench-{name}")
    for row in found:
        sign = "≤" if row.better == "lower" else "≥"
        goal = "" if row.goal is None else f"{sign} {_shown(row.goal)}"
        mark = {None: "", True: "[green]yes[/]", False: "[bold red]NO[/]"}[row.met]
        table.add_row(row.id, _shown(row.value), goal, row.unit, row.kind, mark)
    Console(width=120).print(table)
    return not any(row.missed for row in found)
