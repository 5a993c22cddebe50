"""What became of an engine's decisions, as a value: `engine.json` beside the integers.

Imports no torch: reports read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydantic

from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.jsonvalue import from_json, to_json

REPORT = "engine.json"
_SHOWN = 8


@dataclass(frozen=True)
class Trial:
    """A recipe that was tried.

    Args:
        accuracy_percent: of the fake-quantized model on the selection split; None if it failed.
        failure: what the engine said.
    """

    recipe: str
    accuracy_percent: float | None
    failure: str | None = None


@dataclass(frozen=True)
class Deviation:
    """A tensor whose numbers are not the engine's, or not as it wanted them used."""

    tensor: str
    reason: str


@dataclass(frozen=True)
class EngineReport:
    """What became of an engine's decisions.

    Args:
        activations, weights: tensors and layers whose numbers are the engine's, `of` how many.
    """

    engine: str
    recipe: str
    activations: int
    of_activations: int
    weights: int
    of_weights: int
    deviations: tuple[Deviation, ...]
    trials: tuple[Trial, ...] = ()
    float_accuracy_percent: float | None = None
    ended: str = ""

    def summary(self) -> tuple[str, ...]:
        """For a report: what is the engine's, what is not, what was tried."""
        lines = [
            f"quantized by {self.engine}, {self.recipe}: {self.activations} of"
            f" {self.of_activations} activation scales and {self.weights} of {self.of_weights}"
            " layers' weights are its own; equalization, bias correction and learned rounding"
            " are no part of it"
        ]
        groups: dict[str, list[str]] = {}
        for each in self.deviations:
            groups.setdefault(each.reason, []).append(each.tensor)
        for reason, tensors in groups.items():
            more = f" and {len(tensors) - _SHOWN} more" if len(tensors) > _SHOWN else ""
            lines.append(f"{reason}: {', '.join(tensors[:_SHOWN])}{more}")
        for trial in self.trials:
            accuracy = trial.accuracy_percent
            found = trial.failure if accuracy is None else f"{accuracy:.2f} %"
            lines.append(f"tried {trial.recipe}: {found}")
        return (*lines, *((f"tuning ended: {self.ended}",) if self.ended else ()))

    def save(self, folder: Path) -> None:
        """Write `engine.json` into an existing folder."""
        (folder / REPORT).write_text(to_json(self), encoding="utf-8")


def load_report(folder: Path) -> EngineReport | None:
    """What `save` wrote; None where no engine was used.

    Raises:
        CacheError: the file is damaged.
    """
    try:
        return from_json(EngineReport, (folder / REPORT).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, pydantic.ValidationError) as error:
        raise CacheError(
            f"{folder / REPORT} cannot be read: {type(error).__name__}",
            fix="run the quantize stage again with --force quantize",
        ) from error
