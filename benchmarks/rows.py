"""What every benchmark writes: rows of measured figures against goals, as JSON and as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from edgesmith.pipeline.versions import installed, machine

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One figure. `goal` None states the figure without judging it."""

    id: str
    value: float
    unit: str
    kind: Literal["measured", "simulated", "estimated"] = "measured"
    goal: float | None = None
    better: Literal["lower", "higher"] = "lower"
    met: bool = field(init=False)

    def __post_init__(self) -> None:
        if self.goal is None:
            met = True
        elif self.better == "lower":
            met = self.value <= self.goal
        else:
            met = self.value >= self.goal
        object.__setattr__(self, "met", met and not math.isnan(self.value))


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

    The file keeps what earlier runs measured in the other groups, with the same machine and
    versions. It is written after each group, so that a long run that is cut off is not lost.

    Returns:
        Whether every group was measured and every goal is met.
    """
    kept = _kept(name, versions) if len(chosen) < len(groups) else {}
    for group in chosen:
        kept[group] = list(groups[group]())
        kept = {each: kept[each] for each in groups if each in kept}
        rows = [asdict(row) | {"group": each} for each, rows in kept.items() for row in rows]
        _write(name, versions, {"rows": rows})
    return _print(name, [row for rows in kept.values() for row in rows]) and len(kept) == len(
        groups
    )


def _header(versions: Mapping[str, str]) -> dict[str, Any]:
    return {"machine": machine(), "versions": installed() | dict(versions)}


def _write(name: str, versions: Mapping[str, str], rows: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(_header(versions) | rows, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def _kept(name: str, versions: Mapping[str, str]) -> dict[str, list[Row]]:
    """What the file of a benchmark says, by group, where it was measured as it would be now."""
    path = RESULTS / f"{name}.json"
    found: dict[str, list[Row]] = {}
    if not path.exists():
        return found
    document = json.loads(path.read_text())
    header = json.loads(json.dumps(_header(versions)))
    if any(document.get(key) != value for key, value in header.items()):
        return found
    for row in document["rows"]:
        group = row.pop("group")
        del row["met"]
        found.setdefault(group, []).append(Row(**row))
    return found


def _print(name: str, found: Sequence[Row]) -> bool:
    table = Table("figure", "value", "goal", "unit", "kind", "met", title=f"bench-{name}")
    for row in found:
        sign = "≤" if row.better == "lower" else "≥"
        goal = "" if row.goal is None else f"{sign} {_shown(row.goal)}"
        mark = "" if row.goal is None else "[green]yes[/]" if row.met else "[bold red]NO[/]"
        table.add_row(row.id, _shown(row.value), goal, row.unit, row.kind, mark)
    Console(width=120).print(table)
    return all(row.met for row in found)
