"""Number formats against what a target takes: of options before a run, of a policy before work.

A target's description names storage types per operator; formats that share a storage
(int1 and int2, int3 and int4, e3m2 and E4M3) are taken alike. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.pipeline.stage import Refusal
from edgesmith.pipeline.values import GroupFormats, Policy, QFormat
from edgesmith.quantize.options import ACTIVATION_FORMATS, WEIGHT_FORMATS, PTQOptions

if TYPE_CHECKING:
    from edgesmith.targets.base import TargetDescription

_SHOWN = 5


@dataclass(frozen=True)
class TakenFormats:
    """What a target takes, as storage types.

    Args:
        activations: of any operator.
        pairs: (activation, weight) of operators with weights.
    """

    target: str
    activations: frozenset[str]
    pairs: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, description: TargetDescription) -> TakenFormats:
        forms = [form for offered in description.ops.values() for form in offered]
        pairs = frozenset((form.activation, form.weight) for form in forms if form.weight)
        return cls(description.name, frozenset(form.activation for form in forms), pairs)

    def activation_names(self) -> tuple[str, ...]:
        """The activation formats of specs that it takes."""
        return tuple(
            name
            for name, fmt in ACTIVATION_FORMATS.items()
            if fmt.activation_storage in self.activations
        )

    def weight_names(self, activation: QFormat | None = None) -> tuple[str, ...]:
        """The weight formats of specs that it takes, beside one activation format or any."""
        return tuple(name for name, fmt in WEIGHT_FORMATS.items() if self.takes(activation, fmt))

    def takes(self, activation: QFormat | None, weight: QFormat) -> bool:
        """Whether an operator takes such weights, beside one activation format or any."""
        return any(
            weights == weight.storage
            and (activation is None or activations == activation.activation_storage)
            for activations, weights in self.pairs
        )


def refusals(options: PTQOptions, description: TargetDescription) -> Iterator[Refusal]:
    """The formats of options that a target lacks; the places are paths of their fields."""
    taken = TakenFormats.of(description)
    if not taken.pairs:
        return
    rules: list[tuple[tuple[str | int, ...], str | None, str | None]] = [
        ((), options.weights, options.activations)
    ]
    rules += [
        (("overrides", index), rule.weights, rule.activations)
        for index, rule in enumerate(options.overrides)
    ]
    for path, weights, activations in rules:
        weight = WEIGHT_FORMATS[weights] if weights else None
        activation = ACTIVATION_FORMATS[activations] if activations else None
        if activation is not None and activation.activation_storage not in taken.activations:
            fix = f"it takes {_listed(taken.activation_names())}"
            yield Refusal((*path, "activations"), _lacks(taken, f"{activations} activations"), fix)
        elif weight is not None and not taken.takes(None, weight):
            fix = f"it takes {_listed(taken.weight_names())}"
            yield Refusal((*path, "weights"), _lacks(taken, f"{weights} weights"), fix)
        elif weight is not None and activation is not None and not taken.takes(activation, weight):
            what = f"{weights} weights beside {activations} activations"
            fix = f"beside these it takes {_listed(taken.weight_names(activation))}"
            yield Refusal((*path, "weights"), _lacks(taken, what), fix)


def check_policy(
    policy: Policy, inputs: Mapping[str, str], descriptions: Sequence[TargetDescription]
) -> None:
    """Compare the formats of every group with what targets take.

    Args:
        inputs: group with weights -> group that it reads.

    Raises:
        TargetUnsupportedError: lists the groups whose formats a target lacks.
    """
    for description in descriptions:
        taken = TakenFormats.of(description)
        wrong = [
            reason
            for name, formats in policy.groups.items()
            for reason in _lacking(taken, name, formats, policy.groups.get(inputs.get(name, "")))
        ]
        if taken.pairs and wrong:
            more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            lines = "".join(f"\n  - {reason}" for reason in wrong[:_SHOWN])
            groups = f"{len(wrong)} group{'' if len(wrong) == 1 else 's'}"
            raise TargetUnsupportedError(
                f"{taken.target!r} lacks the formats of {groups}:{lines}{more}",
                fix=f"it takes the activations {_listed(taken.activation_names())}, and the"
                f" weights {_listed(taken.weight_names())}",
            )


def _lacking(
    taken: TakenFormats, name: str, formats: GroupFormats, source: GroupFormats | None
) -> Iterator[str]:
    if formats.activation.activation_storage not in taken.activations:
        yield f"{name!r} has {formats.activation.name} activations"
    elif formats.weight is not None:
        activation = source.activation if source is not None else formats.activation
        if not taken.takes(activation, formats.weight):
            yield f"{name!r} has {formats.weight.name} weights beside {activation.name} activations"


def _lacks(taken: TakenFormats, what: str) -> str:
    return f"the target `{taken.target}` lacks {what}"


def _listed(names: Sequence[str]) -> str:
    """Names for a message; each format with a scale per tensor is one of the others."""
    return ", ".join(name for name in names if not name.endswith("-per-tensor")) or "none"
