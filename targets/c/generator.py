"""A program and its memory plan become a folder of C11.

Python prints wiring, constants and arguments; what computes is real C in `kernels/`,
copied as it stands. The same program gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import jinja2

from edgesmith.pipeline.errors import SpecError
from edgesmith.targets.c import text
from edgesmith.targets.c.memory.lifetimes import expanded_name, scratch_name
from edgesmith.targets.c.program import Array, Call, Program, Role

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from edgesmith.targets.c.program import MemoryPlan
    from edgesmith.targets.graph.ir import Graph

_INCLUDE = re.compile(r'^#include "(es_\w+\.h)"', re.MULTILINE)
_NAME = re.compile(r"\bes_\w+")
_KERNEL_NAME = re.compile(r"^#include .*$|\bes_\w+", re.MULTILINE)


@dataclass(frozen=True)
class Library:
    """The generated files, relative path -> bytes, and where things are in them.

    Args:
        traced: names of the traced tensors, by the index that the trace hook gets.
        arrays: symbol -> the constant array that it holds.
    """

    files: dict[str, bytes]
    traced: tuple[str, ...]
    arrays: dict[str, Array]


@dataclass(frozen=True)
class _Edge:
    """An input or output as the templates show it."""

    comment: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    offset: int
    scale: str
    zero_point: int


@dataclass(frozen=True)
class _Layer:
    """One call as the templates show it."""

    number: str
    kind: str
    comment: str
    function: str
    type_name: str
    arguments: str
    operands: tuple[str, ...]
    traced: tuple[tuple[int, int, int], ...]
    expansion: _Expansion | None = None


@dataclass(frozen=True)
class _Expansion:
    """What runs before a call, as the templates show it."""

    function: str
    type_name: str
    arguments: str
    where: str


def generate(
    graph: Graph,
    program: Program,
    plan: MemoryPlan,
    *,
    prefix: str = "model",
    kernels: str = "",
    compiler: str = "cc",
) -> Library:
    """Print the library.

    Args:
        graph: the tensors' types and scales.
        prefix: what every public name starts with.
        kernels, compiler: the name of the kernel set and the command, for the README.

    Raises:
        SpecError: the prefix is no C identifier.
    """
    return _Printer(graph, program, plan, text.checked_prefix(prefix), kernels, compiler).library()


@cache
def _kernel_folder() -> Traversable:
    return files("edgesmith.targets.c").joinpath("kernels")


@cache
def templates() -> jinja2.Environment:
    """The C templates; what they are given is C text already."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("edgesmith.targets.c", "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - C text; names from models pass through text.comment
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


class _Printer:
    """One library on its way to text."""

    def __init__(
        self,
        graph: Graph,
        program: Program,
        plan: MemoryPlan,
        prefix: str,
        kernels: str,
        compiler: str,
    ) -> None:
        self.graph = graph
        self.program = program
        self.plan = plan
        self.prefix = prefix
        self.kernels = kernels
        self.compiler = compiler
        self.arrays: dict[str, Array] = {}
        self.symbols: dict[int, str] = {}
        self.traced = tuple(name for call in program.calls for name in call.writes)
        self._name_arrays()

    def library(self) -> Library:
        sources, headers = self._kernel_files()
        context = self._context(sources, headers)
        prefix = self.prefix
        made = {
            f"{prefix}.h": "model.h.j2",
            f"{prefix}.c": "model.c.j2",
            f"{prefix}_data.h": "data.h.j2",
            f"{prefix}_data.c": "data.c.j2",
            "CMakeLists.txt": "CMakeLists.txt.j2",
            "README.md": "README.md.j2",
        }
        texts = {
            path: templates().get_template(name).render(context) for path, name in made.items()
        }
        if taken := sorted(texts.keys() & sources.keys()):
            raise SpecError(
                f"{prefix!r} cannot be the prefix: {taken[0]} is a file of the kernels",
                fix="choose another prefix, such as 'model'",
            )
        texts |= {path: self._own(body) for path, body in {**sources, **headers}.items()}
        return Library(
            {path: body.encode() for path, body in sorted(texts.items())},
            self.traced,
            dict(self.arrays),
        )

    def _context(self, sources: dict[str, str], headers: dict[str, str]) -> dict[str, object]:
        calls = self.program.calls
        functions = {call.function for call in calls}
        functions |= {call.expanded.function for call in calls if call.expanded is not None}
        declaring = [name for name in sorted(headers) if _declares(headers[name], functions)]
        return {
            "title": text.comment(self.graph.name) or self.prefix,
            "p": self.prefix,
            "P": self.prefix.upper(),
            "kernels": self.kernels,
            "compiler": self.compiler,
            "arena_bytes": self.plan.arena_bytes,
            "constant_bytes": sum(array.data.nbytes for array in self.arrays.values()),
            "macs": sum(call.macs for call in calls),
            "inputs": [self._edge(name) for name in self.program.inputs],
            "outputs": [self._edge(name) for name in self.program.outputs],
            "layers": list(self._layers()),
            "arrays": [
                {
                    "name": name,
                    "type": text.c_type(array.data),
                    "count": array.data.size,
                    "alignment": max(array.alignment, array.data.itemsize),
                    "lines": list(text.elements(array.data)),
                }
                for name, array in self.arrays.items()
            ],
            "headers": declaring,
            "sources": sorted((f"{self.prefix}.c", f"{self.prefix}_data.c", *sources)),
        }

    def _own(self, body: str) -> str:
        """Kernel text with the prefix before every name, so that several networks link together.

        Assembly has the names in its text, where the preprocessor would not find them.
        """

        def named(match: re.Match[str]) -> str:
            text = match.group()
            return text if text.startswith("#") else f"{self.prefix}_{text}"

        return _KERNEL_NAME.sub(named, body)

    def _name_arrays(self) -> None:
        """Give every array a symbol; arrays of equal content share one."""
        by_content: dict[tuple[str, bytes], str] = {}
        counts = dict.fromkeys(Role, 0)
        used = [array for call in self.program.calls for array in text.arrays_in(call.arguments)]
        for array in (*used, *self.program.constants.values()):
            content = (array.data.dtype.name, array.data.tobytes())
            name = by_content.get(content)
            if name is None:
                name = f"{self.prefix}_{array.role}_{counts[array.role]:03d}"
                counts[array.role] += 1
                by_content[content] = name
                self.arrays[name] = array
            elif array.alignment > self.arrays[name].alignment:
                self.arrays[name] = array
            self.symbols[id(array)] = name

    def _kernel_files(self) -> tuple[dict[str, str], dict[str, str]]:
        """Sources that calls name, by file name, and the headers that they include."""
        folder = _kernel_folder()
        paths = dict.fromkeys(path for call in self.program.calls for path in call.sources)
        sources = {path.rpartition("/")[2]: folder.joinpath(path).read_text() for path in paths}
        headers: dict[str, str] = {}
        waiting = [name for body in sources.values() for name in _INCLUDE.findall(body)]
        while waiting:
            name = waiting.pop()
            if name not in headers:
                headers[name] = folder.joinpath("include", name).read_text()
                waiting += _INCLUDE.findall(headers[name])
        return sources, headers

    def _offset(self, name: str) -> int:
        owner, inside = self.program.place(name)
        return self.plan.offsets[owner] + inside

    def _edge(self, name: str) -> _Edge:
        tensor = self.graph[name]
        quantized = tensor.quantization is not None
        scale, zero = tensor.q.scalar if quantized else (1.0, 0)
        return _Edge(
            text.comment(name),
            tensor.dtype.value,
            tensor.shape,
            tensor.elements,
            tensor.bytes,
            self._offset(name),
            text.real(scale),  # type: ignore[arg-type]
            int(zero),
        )

    def _layers(self) -> Iterator[_Layer]:
        index = 0
        for number, call in enumerate(self.program.calls):
            traced = []
            for name in call.writes:
                traced.append((index, self._offset(name), self.graph[name].bytes))
                index += 1
            label = f"{number:03d}"
            names = dict(self.symbols)
            if call.expanded is not None:
                names[id(call.expanded)] = self._at(self.plan.offsets[expanded_name(call)])
            yield _Layer(
                label,
                call.kind,
                text.comment(call.name),
                self._own(call.function),
                self._own(call.arguments.type_name),
                text.initializer(call.arguments, names, ""),
                tuple(self._operands(call, label)),
                tuple(traced),
                self._expansion(call, names),
            )

    def _expansion(self, call: Call, names: dict[int, str]) -> _Expansion | None:
        expanded = call.expanded
        if expanded is None:
            return None
        return _Expansion(
            self._own(expanded.function),
            self._own(expanded.arguments.type_name),
            text.initializer(expanded.arguments, names, ""),
            names[id(expanded)],
        )

    def _at(self, offset: int) -> str:
        return f"(void *)({self.prefix}_arena + {offset})"

    def _operands(self, call: Call, label: str) -> Iterator[str]:
        yield f"&{self.prefix}_arguments_{label}"
        for name in call.reads:
            constant = self.program.constants.get(name)
            if constant is not None:
                yield self.symbols[id(constant)]
            else:
                yield f"(const void *)({self.prefix}_arena + {self._offset(name)})"
        addresses = [self._offset(name) for name in call.writes]
        if call.scratch_bytes:
            addresses.append(self.plan.offsets[scratch_name(call)])
        yield from map(self._at, addresses)


def _declares(header: str, functions: set[str]) -> bool:
    """Whether a header names one of the functions: then it is the one that declares it."""
    return not functions.isdisjoint(_NAME.findall(header))
