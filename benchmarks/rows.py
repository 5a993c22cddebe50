"""What every benchmark writes: rows of measured figures against goals, as JSON and as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

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
    document = {
        "machine": machine(),
        "versions": installed() | dict(versions or {}),
        "rows": [asdict(row) for row in found],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    table = Table("figure", "value", "goal", "unit", "kind", "met", title=f"bench-{name}")
    for row in found:
        sign = "≤" if row.better == "lower" else "≥"
        goal = "" if row.goal is None else f"{sign} {_shown(row.goal)}"
        mark = "" if row.goal is None else "[green]yes[/]" if row.met else "[bold red]NO[/]"
        table.add_row(row.id, _shown(row.value), goal, row.unit, row.kind, mark)
    Console(width=120).print(table)
    return all(row.met for row in found)
