"""What every target that takes the generated C has in common, whatever compiles and runs it.

Layout of the artifact: the library's files at the top, and under `firmware/` what is not part
of it: the test program, the graph that was compiled (`model.graph`), what tools made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgesmith.pipeline.errors import ParityError, SpecError
from edgesmith.pipeline.problems import did_you_mean, listed
from edgesmith.pipeline.values import BuildPlan, BuildProducts
from edgesmith.targets.base import LatencyOptions, LatencyRun, Target, TargetDescription
from edgesmith.targets.c.compiler import Compiled, CompileOptions, PlanKind, compile_graph
from edgesmith.targets.c.formats import C_OPS
from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.c.text import checked_prefix
from edgesmith.targets.graph.graph_file import read_graph, write_graph

if TYPE_CHECKING:
    from typing import Self

    from edgesmith.targets.graph.ir import Graph

FIRMWARE = "firmware"
GRAPH_FILE = f"{FIRMWARE}/model.graph"


@dataclass(frozen=True)
class CTargetOptions:
    """What follows a C target's name, as in `cortex-m4@nrf52840,ram=40000,plan=memory`.

    Args:
        board: a preset of sizes and clock.
        ram: bytes that activations, inputs and outputs may take.
        flash: bytes that the whole image may take.
        plan: what to save first: speed or memory.
        prefix: what every public C name starts with.
        vectors: how many test vectors `PREFIX_vectors.h` has; none without.
    """

    board: str | None = None
    ram: int | None = None
    flash: int | None = None
    plan: PlanKind = PlanKind.SPEED
    prefix: str = "model"
    vectors: int = 0

    @classmethod
    def parse(cls, target: str, given: Mapping[str, str]) -> Self:
        """The options of a target, from text.

        Raises:
            SpecError: an option that there is not, or a value that it cannot have.
        """
        names = [field.name for field in fields(cls)]
        values: dict[str, Any] = {}
        for name, text in given.items():
            if name not in names:
                guess = did_you_mean(name, names)
                raise SpecError(
                    f"target {target!r} has no option {name!r}",
                    fix=f"did you mean {guess!r}?" if guess else f"choose of {listed(names)}",
                )
            values[name] = _value(target, name, text)
        return cls(**values)


_NUMBERS = {"ram": "bytes", "flash": "bytes", "vectors": "a count"}


def _value(target: str, name: str, text: str) -> object:
    if name in _NUMBERS:
        if not text.isdecimal() or int(text) == 0:
            raise SpecError(
                f"option {name!r} of target {target!r} is {text!r}",
                fix=f"give {_NUMBERS[name]} as a whole number above 0, such as {name}=64",
            )
        return int(text)
    if name == "plan":
        if text not in list(PlanKind):
            raise SpecError(
                f"option 'plan' of target {target!r} is {text!r}",
                fix=f"choose of {listed([kind.value for kind in PlanKind])}",
            )
        return PlanKind(text)
    return checked_prefix(text) if name == "prefix" else text


@lru_cache(maxsize=4)
def _compiled(graph_bytes: bytes, options: CompileOptions) -> Compiled:
    """Compiling is deterministic: the graph that an artifact states gives its library again."""
    return compile_graph(read_graph(graph_bytes), options)


class CTarget(Target):
    """A target that compiles the generated C and runs it."""

    title: ClassVar[str]
    summary: ClassVar[str]
    kernels: ClassVar[KernelSet] = KernelSet.PORTABLE
    options: ClassVar[CTargetOptions] = CTargetOptions()

    @classmethod
    def with_options(cls, name: str, given: Mapping[str, str]) -> type[Target]:
        options = CTargetOptions.parse(cls.name, given)
        cls.check_board(options.board)
        made: type[Target] = type(cls.__name__, (cls,), {"name": name, "options": options})
        return made

    @classmethod
    def check_board(cls, name: str | None) -> None:
        """Check the option `board`.

        Raises:
            SpecError: there is no such board for this target.
        """
        if name is not None:
            raise SpecError(
                f"target {cls.name!r} has no boards, got {name!r}", fix=f"write {cls.name!r}"
            )

    def describe(self) -> TargetDescription:
        return TargetDescription(
            name=self.name,
            title=self.title,
            summary=self.summary,
            ops=C_OPS,
            rounding_profile="tflite-micro",
            explicit_padding=True,
            channel_divisor=4,
            flash_bytes=self.options.flash,
            ram_bytes=self.options.ram,
        )

    def compile_options(self) -> CompileOptions:
        """How this target's graphs become C."""
        given = self.options
        return CompileOptions(
            self.kernels, prefix=given.prefix, plan=given.plan, ram_bytes=self.arena_limit()
        )

    def arena_limit(self) -> int | None:
        """Bytes that the arena may take."""
        return self.options.ram

    @abstractmethod
    def firmware(self, compiled: Compiled) -> BuildPlan:
        """What else the artifact has, and the commands that build it.

        Paths of files and the main artifact are relative to the folder of the library.
        """

    @abstractmethod
    def constants_in(self, products: BuildProducts) -> Mapping[str, bytes]:
        """The bytes of every symbol in the built image's constant sections."""

    def build(self, graph: Graph) -> BuildPlan:
        data = write_graph(graph)
        compiled = _compiled(data, self.compile_options())
        more = self.firmware(compiled)
        files = {**compiled.library.files, GRAPH_FILE: data, **more.files}
        if self.options.vectors:
            from edgesmith.targets.c.vectors import vectors_header

            prefix = self.options.prefix
            files[f"{prefix}_vectors.h"] = vectors_header(graph, self.options.vectors, prefix)
        return replace(more, files=files)

    def compiled(self, products: BuildProducts) -> Compiled:
        """What the artifact in a folder was built from."""
        data = (Path(products.folder) / GRAPH_FILE).read_bytes()
        return _compiled(data, self.compile_options())

    def shipped(self, products: BuildProducts) -> Graph:
        """The graph that the artifact states, once the image is found to hold its integers.

        Every constant of the linked image (weights, biases, multipliers, shifts, tables) is
        compared with what compiling the stated graph gives; packing is injective, so equal
        bytes mean equal codes.

        Raises:
            ParityError: the image holds something else.
        """
        graph = read_graph((Path(products.folder) / GRAPH_FILE).read_bytes())
        held = self.constants_in(products)
        for symbol, array in self.compiled(products).library.arrays.items():
            expected = array.data.tobytes()
            if held.get(symbol, b"")[: len(expected)] != expected:  # sanitizers add a red zone
                what = "lacks" if symbol not in held else "has other bytes in"
                raise ParityError(
                    f"the image of target {self.name!r} {what} the constant {symbol!r}",
                    fix="build again; if it stays, the compiler or linker changed constants",
                )
        return graph

    def float_baseline(self, float_onnx: Path, folder: Path) -> Path | None:
        return None

    def peak_memory_bytes(self, products: BuildProducts) -> int | None:
        return self.compiled(products).memory.arena_bytes

    def measure_latency(
        self, products: BuildProducts, baseline: Path | None, options: LatencyOptions
    ) -> LatencyRun | None:
        return None
