"""Where quantizers go, and which tensors share one: decided before calibration, by TFLite's rules.

1. The input and every step have a quantizer; a clamp fused into a step comes before it.
2. Operators with `shares_quantizer` (concat, pooling, pad, reshape, transpose,
   slice, resize, clamps of their own) tie their output to their operands: one
   quantizer, so one scale and zero point, for the whole tied set. A tied set has
   one activation format, that of the last override that matches any of its members.
3. Sigmoid, softmax and tanh have outputs whose scale and zero point TFLite fixes.
   A concat that would tie such a tensor to others takes it through a `Requantize`.
4. An operator computes in the format of its output; operands in another format
   go through a `Requantize` named `<tensor>.<format>`. Constants that are no
   activations (an operator's `parameters`) have the format that the operator says.
5. Weights are symmetric (zero point 0). Bias scale is input scale * weight scale.

Source: the TFLite 8-bit quantization specification.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.pipeline.values import GroupFormats, Policy, QFormat
from edgesmith.quantize.network import INPUT, Step
from edgesmith.quantize.ops import Clamp, Concat, FixedOutput, Layer, Relu, Requantize
from edgesmith.quantize.options import (
    ACTIVATION_FORMATS,
    WEIGHT_FORMATS,
    Override,
    PTQOptions,
)

_CLOSE = 0.6  # similarity from which on a name may be a misspelling
_SHOWN = 5  # group names that a message lists


@dataclass(frozen=True)
class Placement:
    """Everything about number formats that is known without data.

    Args:
        steps: the network's steps, with `Requantize` steps where formats meet.
        quantizer_of: tensor (input, step or constant) -> name of its quantizer,
            which is the first tensor of its tied set.
        formats: quantizer -> activation format.
        fixed: quantizer -> (scale, zero point), where TFLite fixes them.
        observed: quantizer -> tensors whose values its range is chosen from.
        parameters: quantizers of constants that are no activations; their range is whole.
        policy: group -> weight and activation format.
    """

    steps: tuple[Step, ...]
    quantizer_of: Mapping[str, str]
    formats: Mapping[str, QFormat]
    fixed: Mapping[str, tuple[float, int]]
    observed: Mapping[str, tuple[str, ...]]
    parameters: frozenset[str]
    policy: Policy

    def format_of(self, tensor: str) -> QFormat:
        """The activation format of a tensor."""
        return self.formats[self.quantizer_of[tensor]]


def place(steps: tuple[Step, ...], constants: Iterable[str], options: PTQOptions) -> Placement:
    """Decide formats and quantizers.

    Raises:
        QuantizationError: an override matches nothing.
    """
    check_overrides(steps, options.overrides)
    steps, fixed = _free_concats(steps)
    constants = tuple(constants)
    roots = _tied_sets(steps, constants)
    chosen = _chosen_formats(steps, roots, options)
    formats = {tensor: chosen[root] for tensor, root in roots.items() if root in chosen}
    parameters = {
        step.inputs[position]: fmt for step in steps for position, fmt in step.op.parameters.items()
    }
    formats |= parameters
    for step in steps:
        # A constant that is tied to nothing has the format of the operator that takes it.
        formats |= {name: formats[step.name] for name in step.inputs if name not in formats}
    steps, converted = _with_requantizers(steps, formats)
    formats |= converted
    quantizer_of = {name: roots.get(name, name) for name in formats}
    policy = {name: GroupFormats(None, formats[name]) for name in (INPUT, *_names(steps))}
    for name, weight in _weight_formats(steps, options).items():
        policy[name] = GroupFormats(weight, formats[name])
    return Placement(
        steps,
        quantizer_of,
        formats={name: formats[name] for name in dict.fromkeys(quantizer_of.values())},
        fixed={
            quantizer_of[name]: values[formats[name].bits]
            for name, values in fixed.items()
            if name in quantizer_of
        },
        observed=_observed(steps, constants, quantizer_of, frozenset(fixed)),
        parameters=frozenset(parameters),
        policy=Policy(policy),
    )


def check_overrides(steps: tuple[Step, ...], overrides: tuple[Override, ...]) -> None:
    """Every rule has to match a group, and a weight format a group with weights.

    Raises:
        QuantizationError: names the rule and the closest group or operator.
    """
    groups = [(INPUT, INPUT), *((step.name, step.op.label) for step in steps)]
    for rule in overrides:
        matched = [name for name, label in groups if _matches(rule, name, label)]
        if not matched:
            raise QuantizationError(
                f"override {rule} matches none of the {len(groups)} groups",
                fix=_closest(rule, groups),
            )
        weighted = {step.name for step in steps if isinstance(step.op, Layer)}
        if rule.weights is not None and not weighted & set(matched):
            raise QuantizationError(
                f"override {rule} sets a weight format, but {matched[0]!r} has no weights",
                fix="match a convolution or linear layer, or set `activations` only",
            )


def _closest(rule: Override, groups: list[tuple[str, str]]) -> str:
    """What to write instead of a rule that matches nothing."""
    labels = sorted({label for _, label in groups})
    named = {label for name, label in groups if fnmatchcase(name, rule.name)}
    if not named:
        names = [name for name, _ in groups]
        close = difflib.get_close_matches(rule.name, names, 1, _CLOSE)
        if close:
            return f"did you mean the name {close[0]!r}?"
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"choose a name from {', '.join(names[:_SHOWN])}{more}"
    if not any(fnmatchcase(label, rule.op) for label in labels):
        return f"choose op from {', '.join(labels)}"
    return f"the groups of that name are of op {', '.join(sorted(named))}"


def _matches(rule: Override, name: str, label: str) -> bool:
    return fnmatchcase(name, rule.name) and fnmatchcase(label, rule.op)


def _names(steps: tuple[Step, ...]) -> tuple[str, ...]:
    return tuple(step.name for step in steps)


def _free_concats(steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], dict[str, FixedOutput]]:
    """Steps in which no concat ties a fixed tensor to others, and the fixed tensors."""
    fixed: dict[str, FixedOutput] = {}
    result: list[Step] = []
    for original in steps:
        step = original
        operands = [fixed.get(name) for name in step.inputs]
        if step.op.fixed_output is not None:
            fixed[step.name] = step.op.fixed_output
        elif step.op.shares_quantizer and all(values == operands[0] for values in operands):
            if operands[0] is not None:
                fixed[step.name] = operands[0]
        elif isinstance(step.op, Concat):
            freed = {name: f"{step.name}.{name}" for name in step.inputs if name in fixed}
            result += [Step(made, Requantize(), (name,)) for name, made in freed.items()]
            step = replace(step, inputs=tuple(freed.get(name, name) for name in step.inputs))
        result.append(step)
    return tuple(result), fixed


def _tied_sets(steps: tuple[Step, ...], constants: Iterable[str]) -> dict[str, str]:
    """Tensor -> first tensor, in execution order, of its tied set (union-find)."""
    order = {name: i for i, name in enumerate((INPUT, *_names(steps), *constants))}
    parent = {name: name for name in order}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for step in steps:
        for operand in step.inputs if step.op.shares_quantizer else ():
            low, high = sorted((root(operand), root(step.name)), key=order.__getitem__)
            parent[high] = low
    return {name: root(name) for name in order}


def _chosen_formats(
    steps: tuple[Step, ...], roots: Mapping[str, str], options: PTQOptions
) -> dict[str, QFormat]:
    """Tied set -> format: the last override that matches one of its groups wins."""
    best = {roots[name]: (-1, options.activations) for name in (INPUT, *_names(steps))}
    for name, label in ((INPUT, INPUT), *((step.name, step.op.label) for step in steps)):
        for index, rule in enumerate(options.overrides):
            if rule.activations is not None and _matches(rule, name, label):
                best[roots[name]] = max(best[roots[name]], (index, rule.activations))
    return {root: ACTIVATION_FORMATS[name] for root, (_, name) in best.items()}


def _weight_formats(steps: tuple[Step, ...], options: PTQOptions) -> dict[str, QFormat]:
    found: dict[str, QFormat] = {}
    for step in steps:
        if isinstance(step.op, Layer):
            name: str = options.weights
            for rule in options.overrides:
                if rule.weights is not None and _matches(rule, step.name, step.op.label):
                    name = rule.weights
            found[step.name] = WEIGHT_FORMATS[name]
    return found


def _with_requantizers(
    steps: tuple[Step, ...], formats: Mapping[str, QFormat]
) -> tuple[tuple[Step, ...], dict[str, QFormat]]:
    """Steps whose operands all have the format of their output; the formats of the new ones."""
    made: dict[str, QFormat] = {}
    result: list[Step] = []
    for step in steps:
        wanted = formats[step.name]
        inputs = []
        for position, operand in enumerate(step.inputs):
            as_it_is = isinstance(step.op, Requantize) or position in step.op.parameters
            if formats[operand] == wanted or as_it_is:
                inputs.append(operand)
                continue
            converted = f"{operand}.{wanted.name}"
            inputs.append(converted)
            if converted not in made:
                result.append(Step(converted, Requantize(), (operand,)))
                made[converted] = wanted
        result.append(replace(step, inputs=tuple(inputs)))
    return tuple(result), made


def _observed(
    steps: tuple[Step, ...],
    constants: Iterable[str],
    quantizer_of: Mapping[str, str],
    fixed: frozenset[str],
) -> dict[str, tuple[str, ...]]:
    """Quantizer -> the tensors that bring new values into its tied set.

    A tensor that only a clamp reads is observed behind the clamp: what the clamp
    cuts off needs no code.
    """
    readers: dict[str, list[Step]] = {}
    for step in steps:
        for name in step.inputs:
            readers.setdefault(name, []).append(step)
    sources = (INPUT, *constants, *(s.name for s in steps if not s.op.shares_quantizer))
    found: dict[str, list[str]] = {}
    for name in sources:
        if name in fixed or name not in quantizer_of:
            continue
        seen = name
        while len(readers.get(seen, [])) == 1 and isinstance(readers[seen][0].op, Relu | Clamp):
            seen = readers[seen][0].name
        found.setdefault(quantizer_of[name], []).append(seen)
    return {quantizer: tuple(names) for quantizer, names in found.items()}
