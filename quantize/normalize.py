"""One form per operator: module, function and method spellings become the steps of a `Draft`.

The rules are in `rules.py`. What no rule takes is refused by name, with the
module that contains it, the reason and what to use instead.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, fx

# Importing these fills RULES.
import edgesmith.quantize.rules_attention
import edgesmith.quantize.rules_compute
import edgesmith.quantize.rules_shape  # noqa: F401
from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.quantize.draft import BATCH_DEPENDENT, BatchDependent, Call, Draft, Ref
from edgesmith.quantize.network import INPUT
from edgesmith.quantize.rules import ADVICE, MODULES, RULES, SUPPORTED, Rule
from edgesmith.quantize.trace import Fact, Traced


def normalize(traced: Traced) -> Draft:
    """The traced model as steps, in execution order, without dead ones.

    Raises:
        UnsupportedError: an operator that cannot be quantized, named with its module path.
    """
    draft = Draft()
    values: dict[fx.Node, Any] = {}
    live = _live(traced.module.graph)
    for node in traced.module.graph.nodes:
        fact = traced.facts[node]
        if node not in live:
            continue
        if node.op == "output":
            draft.output = _checked_output(node, values).name
        elif node.op == "placeholder":
            values[node] = Ref(INPUT, fact.shape, fact.batch_axes)
        elif fact.depends:
            values[node] = _apply(_call(draft, traced, node), values)
        else:
            values[node] = _known(fact)
    return draft


def _live(graph: fx.Graph) -> set[fx.Node]:
    live: set[fx.Node] = set()
    waiting = [node for node in graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node not in live:
            live.add(node)
            waiting.extend(node.all_input_nodes)
    return live


def _known(fact: Fact) -> Any:
    """A value that does not depend on the input's data."""
    two, three = fact.values
    if not isinstance(two, Tensor):
        return two if two == three else _batch_dependent(two, three)
    if two.shape == three.shape:
        return two
    repeated = two.shape[1:] == three.shape[1:] and torch.equal(two[:1].expand_as(two), two)
    return two[:1] if repeated else BATCH_DEPENDENT


def _batch_dependent(two: Any, three: Any) -> Any:
    """Element by element for shapes, so that `x.shape[1]` stays a number."""
    if isinstance(two, tuple | list) and len(two) == len(three):
        return tuple(
            a if a == b else _batch_dependent(a, b) for a, b in zip(two, three, strict=True)
        )
    return BATCH_DEPENDENT


def _call(draft: Draft, traced: Traced, node: fx.Node) -> Call:
    fact = traced.facts[node]
    if node.op == "call_module":
        module = traced.module.get_submodule(str(node.target))
        return Call(draft, node, fact, str(node.target), type(module).__name__, module)
    stack = list(node.meta.get("nn_module_stack", {}).values())
    scope = str(stack[-1][0]) if stack else ""
    target = node.target
    title = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return Call(draft, node, fact, scope, f"operator {title!r}", None)


def _apply(call: Call, values: dict[fx.Node, Any]) -> Any:
    """The call's result: a tensor, or a tuple of them."""
    first = call.fact.values[0]
    if isinstance(first, Tensor):
        _check_tensor(call, first)
    rule, extra = _rule(call)
    args = fx.map_arg(call.node.args, lambda node: values[node])
    kwargs = {**fx.map_arg(call.node.kwargs, lambda node: values[node]), **extra}
    if rule.shape_only:
        return rule.apply(call, args[0] if args else kwargs["input"])
    if _mentions_batch(args) or _mentions_batch(kwargs):
        call.refuse("an argument depends on the batch size", "use -1 or a constant instead")
    try:
        bound = inspect.signature(rule.apply).bind(call, *args, **kwargs)
    except TypeError as error:
        call.refuse(f"arguments that are not supported ({error})", "leave these arguments out")
    return rule.apply(*bound.args, **bound.kwargs)


def _rule(call: Call) -> tuple[Rule, dict[str, Any]]:
    """The rule, and the arguments that a module holds as attributes."""
    if call.module is None:
        target: object = call.node.target
        attributes: tuple[str, ...] = ()
    else:
        target, attributes = MODULES.get(type(call.module), (type(call.module), ()))
    rule = RULES.get(target)
    if rule is None:
        name = call.title.removeprefix("operator ").strip("'")
        call.refuse("it has no integer form here", ADVICE.get(name.lower(), SUPPORTED))
    found = {name: getattr(call.module, name) for name in attributes}
    return rule, {rule.renamed.get(name, name): value for name, value in found.items()}


def _check_tensor(call: Call, value: Tensor) -> None:
    if value.dtype != torch.float32:
        call.refuse(
            f"its result is {str(value.dtype).removeprefix('torch.')}, not float32",
            "move indexing, comparison and argmax out of the model",
        )
    if not call.fact.batch_axes:
        call.refuse("its result mixes or drops the samples of a batch", "leave axis 0 to the batch")


def _mentions_batch(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_mentions_batch(item) for item in value.values())
    if isinstance(value, tuple | list):
        return any(_mentions_batch(item) for item in value)
    if isinstance(value, slice):
        return _mentions_batch((value.start, value.stop, value.step))
    return isinstance(value, BatchDependent)


def _checked_output(node: fx.Node, values: dict[fx.Node, Any]) -> Ref:
    result = node.args[0]
    value = values.get(result) if isinstance(result, fx.Node) else result
    if not isinstance(value, Ref):
        raise UnsupportedError(
            f"the model returns a {type(value).__name__}; exactly one tensor computed from the"
            " input is supported",
            fix="wrap the model in a module that returns the one tensor to deploy",
        )
    if value.name == INPUT:
        raise UnsupportedError(
            "the model returns its input unchanged", fix="check that it is the right model"
        )
    if value.batch_axes != (0,) or value.shape[0] != 2:
        raise UnsupportedError(
            f"the model's output, shape {value.shape} for two samples, does not hold one entry"
            " per sample along axis 0",
            fix="return a tensor [samples, ...]",
        )
    return value
