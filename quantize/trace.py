"""From a user's float model to a torch.fx graph whose every Python value is known.

The graph is run twice, on two and on three samples: values that differ tell
which integers (`x.shape[0]`) and which axes carry the batch. Tensors that do not
depend on the input are constants of the network.
"""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgesmith.pipeline.errors import NonFiniteWeightsError, QuantizationError, UnsupportedError
from edgesmith.quantize import tracer

BATCHES = (2, 3)

# What a user's forward can raise on fx proxies or on a wrong input; fx itself raises TraceError.
_FORWARD_ERRORS = (
    fx.proxy.TraceError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Fact:
    """What a node of the graph evaluates to, on two and on three samples."""

    values: tuple[Any, Any]
    depends: bool
    """It is a tensor computed from the network's input."""

    @property
    def is_tensor(self) -> bool:
        return isinstance(self.values[0], Tensor)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape on two samples."""
        return tuple(self.values[0].shape)

    @property
    def batch_axes(self) -> tuple[int, ...]:
        """Axes whose size depends on the batch."""
        pairs = zip(self.values[0].shape, self.values[1].shape, strict=True)
        return tuple(axis for axis, (two, three) in enumerate(pairs) if two != three)


@dataclass(frozen=True)
class Traced:
    """A traced model in eval mode, float32 on the CPU, with a fact per node."""

    module: fx.GraphModule
    facts: dict[fx.Node, Fact]


def trace(model: nn.Module, sample: Tensor) -> Traced:
    """Trace `model` and evaluate it on repetitions of one `sample` [1, *sample shape].

    Args:
        model: as `float_copy` returns it.

    Raises:
        QuantizationError: the model cannot be traced, or does not run on the sample.
        UnsupportedError: it has not exactly one input.
    """
    batches = [sample.repeat(n, *[1] * (sample.ndim - 1)) for n in BATCHES]
    module = _symbolic(model, batches)
    runs = [_evaluate(module, batch) for batch in batches]
    facts: dict[fx.Node, Fact] = {}
    for node in module.graph.nodes:
        values = (runs[0][node], runs[1][node])
        parents = [facts[parent] for parent in node.all_input_nodes]
        depends = node.op == "placeholder" or any(fact.depends for fact in parents)
        facts[node] = Fact(values, depends and _holds_tensor(values[0]))
    return Traced(module, facts)


def float_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode, float32 on the CPU.

    Raises:
        NonFiniteWeightsError: a parameter or buffer has NaN or infinite values.
    """
    model = copy.deepcopy(model).eval().to("cpu", torch.float32)
    check_finite(model)
    return model


def check_finite(model: nn.Module) -> None:
    """Refuse NaN and infinity.

    Raises:
        NonFiniteWeightsError: names the first tensor that has some, and how many.
    """
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise NonFiniteWeightsError(
                f"tensor {name!r} of the model has {bad} NaN or infinite values out of"
                f" {value.numel()}",
                fix="load a checkpoint of a run that did not diverge",
            )


def _holds_tensor(value: object) -> bool:
    if isinstance(value, tuple | list):
        return any(isinstance(item, Tensor) for item in value)
    return isinstance(value, Tensor)


def _symbolic(model: nn.Module, batches: Sequence[Tensor]) -> fx.GraphModule:
    def outputs(module: fx.GraphModule) -> Iterator[Any]:
        return (_evaluate(module, batch)[module.graph.output_node()] for batch in batches)

    fixed = _other_arguments(model)
    try:
        graph = tracer.traced(model, fixed or None, outputs)
    except _FORWARD_ERRORS as error:
        raise QuantizationError(
            f"{type(model).__name__} cannot be traced: {_first_sentence(error)}{_user_line(error)}",
            fix="make the forward pass a fixed sequence of operators: no `if`, loop, print or"
            " NumPy call on what tensors hold or on the batch size; or factor that part out of the"
            " model",
        ) from error
    return fx.GraphModule(model, graph)


def _first_sentence(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0]


def _user_line(error: BaseException) -> str:
    """Where in the user's code tracing failed; empty when no user code is on the stack."""
    library, ours = str(torch.__path__[0]), (__file__, tracer.__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(library) and frame.filename not in ours
    ]
    if not frames:
        return ""
    last = frames[-1]
    return f" (at {last.filename}:{last.lineno}: `{last.line}`)"


def _other_arguments(model: nn.Module) -> dict[str, object]:
    """Defaults of every argument but the first, which tracing then fixes."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    others = parameters[1:]
    if parameters and parameters[0].kind not in variadic:
        free = [p for p in others if p.default is p.empty]
        if not free:
            return {p.name: p.default for p in others}
    names = ", ".join(str(p) for p in parameters) or "none"
    raise UnsupportedError(
        f"forward of {type(model).__name__} takes the arguments ({names});"
        " exactly one tensor is supported",
        fix="wrap the model in a module whose forward takes one tensor and fixes the others",
    )


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        # In-place operators would change the record afterwards.
        self.found[n] = result.clone() if isinstance(result, Tensor) else result
        return result


@torch.no_grad()
def _evaluate(module: fx.GraphModule, batch: Tensor) -> dict[fx.Node, Any]:
    """What every node gives."""
    recorder = _Recorder(module)
    try:
        recorder.run(batch.clone())
    except _FORWARD_ERRORS as error:
        raise QuantizationError(
            f"the model does not run on samples of shape {tuple(batch.shape[1:])}:"
            f" {_first_sentence(error)}",
            fix="check `input_shape`, the calibration data and the model against each other",
        ) from error
    return recorder.found
