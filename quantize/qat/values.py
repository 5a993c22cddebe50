"""What quantization-aware training did, as a value: `qat.json` beside the integers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydantic

from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.jsonvalue import from_json, to_json

RESULT = "qat.json"


@dataclass(frozen=True)
class QATResult:
    """Accuracies are percent of the selection split.

    Args:
        floating: of the float model.
        before: of the integers that post-training quantization found.
        after: of the integers that were kept.
        epochs: trained; fewer than asked for where accuracy stopped rising.
        improved: an epoch's integers were kept, not those of the start.
        diverged: the loss became infinite or NaN, or accuracy collapsed; training stopped there.
        samples: of the selection split.
    """

    floating: float
    before: float
    after: float
    epochs: int
    improved: bool
    diverged: bool
    samples: int

    def summary(self) -> tuple[str, ...]:
        """What a report says."""
        found = (
            f"quantization-aware training, {self.epochs} epochs: {self.before:.2f} % ->"
            f" {self.after:.2f} % of {self.samples} selection samples (float {self.floating:.2f} %)"
        )
        notes = [found]
        if self.diverged:
            notes.append("quantization-aware training diverged and was stopped; the best was kept")
        if not self.improved:
            notes.append(
                "no epoch of quantization-aware training was better than post-training"
                " quantization, whose integers were kept"
            )
        return tuple(notes)

    def save(self, folder: Path) -> None:
        """Write `qat.json` into an existing folder."""
        (folder / RESULT).write_text(to_json(self), encoding="utf-8")


def load_result(folder: Path) -> QATResult | None:
    """What `save` wrote; None where nothing was trained.

    Raises:
        CacheError: the file is damaged.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        return from_json(QATResult, path.read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        raise CacheError(
            f"{RESULT} of the quantized model cannot be read: {type(error).__name__}",
            fix="run the quantize stage again with --force quantize",
        ) from error
