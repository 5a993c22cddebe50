"""Where quantizers go, and which tensors share one: decided before calibration, by TFLite's rules.

1. The input and every step have a quantizer; a clamp fused into a step comes before it.
2. Operators with `shares_quantizer` (concat, pooling, pad, reshape, transpose,
   slice, resize, clamps of their own) tie their output to their operands: one
   quantizer, so one scale and zero point, for the whole tied set. A tied set has
   one activation format, that of the last override that matches any of its members.
3. Sigmoid, softmax and tanh have outputs whose scale and zero point TFLite fixes, in int8
   and int16: asked for int4 they give int8. Float outputs have scales like all others.
   A concat that would tie such a tensor to others takes it through a `Requantize`.
4. An operator computes in the format of its output; operands in another format
   go through a `Requantize` named `<tensor>.<format>`, unless both are floats. Constants
   that are no activations (an operator's `parameters`) have the format that it says.
5. Weights are symmetric (zero point 0). Bias scale is input scale * weight scale.
6. Where the default activation format is an 8-bit float, only what layers and matrix
   products read has it: FP8 products accumulate and leave in wider floats, so all other
   tensors are float32, without a quantizer. So is the network's input: a float has no
   zero point, and of pixels E4M3 keeps the first four bits (Shen et al., "Efficient
   Post-training Quantization with FP8 Formats", arXiv:2309.14592, leave the first layer
   out). Overrides say otherwise.

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
from edgesmith.quantize.ops import Clamp, Concat, FixedOutput, Layer, MatMul, Relu, Requantize
from edgesmith.quantize.options import ACTIVATION_FORMATS, Override, PTQOptions

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

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that a policy decides about: the input and every step but `Requantize`."""
        made = (step.name for step in self.steps if not isinstance(step.op, Requantize))
        return (INPUT, *made)

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
    for name, values in fixed.items():
        if not chosen[roots[name]].is_float and chosen[roots[name]].bits not in values:
            chosen[roots[name]] = options.activation_format("int8")
    fixed = {name: each for name, each in fixed.items() if not chosen[roots[name]].is_float}
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
    unquantized = {
        root: (1.0, 0) for name, root in quantizer_of.items() if formats[name].is_float32
    }
    policy = {name: GroupFormats(None, formats[name]) for name in (INPUT, *_names(steps))}
    for name, weight in _weight_formats(steps, options).items():
        policy[name] = GroupFormats(weight, formats[name])
    return Placement(
        steps,
        quantizer_of,
        formats={name: formats[name] for name in dict.fromkeys(quantizer_of.values())},
        fixed=unquantized
        | {
            quantizer_of[name]: values[formats[name].bits]
            for name, values in fixed.items()
            if name in quantizer_of
        },
        observed={
            root: names
            for root, names in _observed(steps, constants, quantizer_of, frozenset(fixed)).items()
            if root not in unquantized
        },
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
    fed = {
        roots[name] for step in steps if isinstance(step.op, Layer | MatMul) for name in step.inputs
    }
    fed.discard(roots[INPUT])
    for root, (index, name) in best.items():
        if index < 0 and ACTIVATION_FORMATS[name].is_float and root not in fed:
            best[root] = (index, "float32")
    return {root: options.activation_format(name) for root, (_, name) in best.items()}


def _weight_formats(steps: tuple[Step, ...], options: PTQOptions) -> dict[str, QFormat]:
    found: dict[str, QFormat] = {}
    for step in steps:
        if isinstance(step.op, Layer):
            name: str = options.weights
            for rule in options.overrides:
                if rule.weights is not None and _matches(rule, step.name, step.op.label):
                    name = rule.weights
            found[step.name] = options.weight_format(name)
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
            floats = formats[operand].is_float and wanted.is_float
            if formats[operand] == wanted or floats or as_it_is:
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
