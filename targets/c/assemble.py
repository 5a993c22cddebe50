"""A legal IntegerGraph becomes a program: one call per operator, reshapes become views."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from edgesmith.targets.c.lowerings.base import Site, lower_op
from edgesmith.targets.c.prepare import prepared
from edgesmith.targets.c.program import Array, Call, Program, Role, Storage, View
from edgesmith.targets.graph import ir


@cache
def _import_lowerings() -> None:
    package = f"{__package__}.lowerings"
    for module in pkgutil.iter_modules([str(Path(__file__).parent / "lowerings")]):
        importlib.import_module(f"{package}.{module.name}")


def assemble(site: Site, views: Mapping[str, View] | None = None) -> Program:
    """Lower every operator of `site.graph`.

    Args:
        views: tensors that lie inside others beside the reshaped ones; they need no producer.

    Raises:
        TargetUnsupportedError: an operator or format that no kernel takes.
    """
    _import_lowerings()
    graph = prepared(site.graph)
    site = replace(site, graph=graph)
    lying = dict(views or {})
    calls: list[Call] = []
    for op in graph.ops:
        if isinstance(op, ir.Reshape) and not graph[op.inputs[0]].is_constant:
            lying[op.output] = View(op.inputs[0], 0)
        else:
            calls.append(lower_op(op, site))
    written = [name for call in calls for name in call.writes]
    owners = [name for name in (*graph.inputs, *written) if name not in lying]
    parents = [view.parent for view in lying.values() if view.parent not in lying]
    storages = {
        name: Storage(name, graph[name].bytes) for name in dict.fromkeys((*owners, *parents))
    }
    return Program(
        calls=tuple(calls),
        storages=storages,
        views=lying,
        inputs=graph.inputs,
        outputs=graph.outputs,
        constants=_constants(graph, calls),
    )


def _constants(graph: ir.Graph, calls: list[Call]) -> dict[str, Array]:
    """Constant operands of calls, as they are."""
    found = {}
    for name in dict.fromkeys(name for call in calls for name in call.reads):
        data = graph[name].data
        if data is not None:
            found[name] = Array(data, Role.WEIGHTS)
    return found
