"""torch.fx tracing that answers what Python asks of shapes.

`torch.fx` runs a forward pass without values, so `if x.shape[2] > 32`, `assert x.dim() == 4`,
`for row in range(x.size(1))` or `len(x.unbind(1))` end it. Such a question has one answer for every
sample of a shape: it is found by running what was traced so far, and tracing begins anew with the
answer. A question about what a tensor holds, or about the batch size, has none.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import fx, nn
from torch.fx.proxy import Attribute, TraceError

Question = Callable[[Any], Any]
Outputs = Callable[[fx.GraphModule], Iterable[Any]]
"""What a module returns on batches of more than one size."""

_OF_SHAPE = {
    *("shape", "size", "dim", "ndim", "ndimension", "numel", "nelement"),
    *("dtype", "device", "is_contiguous", "is_floating_point", "stride"),
}


class Undecidable(TraceError):
    """Python asked for what is not the same for all samples."""


def traced(model: nn.Module, fixed: dict[str, object] | None, outputs: Outputs) -> fx.Graph:
    """The graph of `model`'s forward pass, what Python decides in it decided.

    Args:
        fixed: values of arguments that are no inputs.

    Raises:
        Undecidable: Python asks what a tensor holds, or for the batch size.
        TraceError: torch.fx cannot follow; so can any error that the forward pass raises.
    """
    answers: list[Any] = []
    while True:
        tracer = _Tracer(answers)
        try:
            return tracer.trace(model, concrete_args=fixed)
        except _Asked as error:
            asked = error
        answers.append(_answer(asked, model, tracer.graph, outputs))


class _Asked(BaseException):
    """A question without an answer yet; no `except Exception` of a model is to catch it."""

    def __init__(self, question: Question, node: fx.Node) -> None:
        super().__init__()
        self.question = question
        self.node = node


def _answer(asked: _Asked, model: nn.Module, graph: fx.Graph, outputs: Outputs) -> Any:
    question, node = asked.question, asked.node
    reason = ""
    if question is not len and node in _holding_data(graph):
        reason = "Python asks what a tensor holds"
    else:
        graph.output(node)
        first, *others = map(question, outputs(fx.GraphModule(model, graph)))
        if any(other != first for other in others):
            reason = "Python asks for the batch size"
    if reason:
        raise Undecidable(reason).with_traceback(asked.__traceback__)
    return first


def _holding_data(graph: fx.Graph) -> set[fx.Node]:
    """Nodes whose value depends on what the input holds, not on its shape alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        of_shape = _asks_of_shape(node)
        if node.op == "placeholder" or (not of_shape and found & set(node.all_input_nodes)):
            found.add(node)
    return found


def _asks_of_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _OF_SHAPE
    if node.op == "call_function":
        name = node.args[1] if node.target is getattr else getattr(node.target, "__name__", "")
        return name in _OF_SHAPE
    return False


class _Tracer(fx.Tracer):
    """Answers in the order of the questions, which is the same every time.

    Args:
        answers: to the first of them.
    """

    def __init__(self, answers: list[Any]) -> None:
        super().__init__()
        self._answers = iter(answers)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.answer(bool, obj))

    def iter(self, obj: fx.Proxy) -> Iterator[fx.Proxy]:
        return iter([operator.getitem(obj, at) for at in range(self.answer(len, obj))])

    def answer(self, question: Question, proxy: fx.Proxy) -> Any:
        for known in self._answers:
            return known
        raise _Asked(question, proxy.node)


class _Proxy(fx.Proxy):
    """A proxy that may be asked what Python wants to know at once."""

    tracer: _Tracer

    def __getattr__(self, name: str) -> _Attribute:
        return _Attribute(self, name)

    def __len__(self) -> int:
        return int(self.tracer.answer(len, self))

    def __int__(self) -> int:
        return int(self.tracer.answer(int, self))

    def __index__(self) -> int:
        return int(self.tracer.answer(operator.index, self))

    def __float__(self) -> float:
        return float(self.tracer.answer(float, self))


class _Attribute(_Proxy, Attribute):
    """Of `value.name`, which becomes a node only if it is not called."""
