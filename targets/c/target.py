"""What every target that takes the generated C has in common, whatever compiles and runs it.

Layout of the artifact: the library's files at the top, and under `firmware/` what is not part
of it: the test program, the graph that was compiled (`model.graph`), what tools made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
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
from edgesmith.targets.c.zeros import Zeros
from edgesmith.targets.graph.graph_file import read_graph, write_graph

if TYPE_CHECKING:
    from typing import Self

    from edgesmith.targets.graph.ir import Graph

FIRMWARE = "firmware"
GRAPH_FILE = f"{FIRMWARE}/model.graph"


@dataclass(frozen=True)
class CTargetOptions:
    """What follows a C target's name, as in `cortex-m4@nrf52840-dk,ram=40000,plan=memory`.

    Args:
        board: a preset of sizes and clock.
        ram: bytes that inputs, outputs and activations may take: the arena, nothing else.
        flash: bytes that the whole image may take.
        plan: what to save first: speed, memory, or memory in bands.
        zeros: whether weights lie in flash without their zeros: where that saves bytes and
            takes no more arena, never, or wherever it saves bytes.
        prefix: what every public C name starts with.
        vectors: how many test vectors `PREFIX_vectors.h` has; none without.
    """

    board: str | None = None
    ram: int | None = None
    flash: int | None = None
    plan: PlanKind = PlanKind.SPEED
    zeros: Zeros = Zeros.AUTO
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
_MOST_VECTORS = 1000
_SHOWN_OPTIONS = (
    "ram=BYTES, flash=BYTES, "
    f"plan={'|'.join(kind.value for kind in PlanKind)}, "
    f"zeros={'|'.join(each.value for each in Zeros)}, prefix=NAME, vectors=COUNT"
)
_CHOICES: Mapping[str, type[StrEnum]] = {"plan": PlanKind, "zeros": Zeros}


def _value(target: str, name: str, text: str) -> object:
    if name in _NUMBERS:
        if not text.isdecimal() or int(text) == 0:
            raise SpecError(
                f"option {name!r} of target {target!r} is {text!r}",
                fix=f"give {_NUMBERS[name]} as a whole number above 0, such as {name}=64",
            )
        if name == "vectors" and int(text) > _MOST_VECTORS:
            raise SpecError(
                f"target {target!r} is asked for {int(text):,} test vectors",
                fix=f"give at most {_MOST_VECTORS:,}; they are C text, computed when building",
            )
        return int(text)
    if name in _CHOICES:
        choices = [each.value for each in _CHOICES[name]]
        if text not in choices:
            raise SpecError(
                f"option {name!r} of target {target!r} is {text!r}",
                fix=f"choose of {listed(choices)}",
            )
        return _CHOICES[name](text)
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
    compiler: ClassVar[str] = "cc"  # the command that the library's README shows
    options: ClassVar[CTargetOptions] = CTargetOptions()

    @classmethod
    def with_options(cls, name: str, given: Mapping[str, str]) -> type[Target]:
        options = CTargetOptions.parse(cls.name, given)
        cls.check_options(options)
        made: type[Target] = type(cls.__name__, (cls,), {"name": name, "options": options})
        return made

    @classmethod
    def check_options(cls, options: CTargetOptions) -> None:
        """Check what depends on the target.

        Raises:
            SpecError: there is no such board for this target, or it has less memory.
        """
        if options.board is not None:
            raise SpecError(
                f"target {cls.name!r} has no boards, got {options.board!r}",
                fix=f"write {cls.name!r}",
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
            omits_zeros=self.options.zeros is not Zeros.STORE,
        )

    def interface(self) -> str | None:
        return f"{self.options.prefix}.h"

    def details(self) -> Mapping[str, str]:
        return {"options": _SHOWN_OPTIONS}

    def compile_options(self) -> CompileOptions:
        """How this target's graphs become C."""
        given = self.options
        return CompileOptions(
            self.kernels,
            prefix=given.prefix,
            plan=given.plan,
            zeros=given.zeros,
            ram_bytes=self.arena_limit(),
            compiler=self.compiler,
        )

    def arena_limit(self) -> int | None:
        """Bytes that the arena may take."""
        return self.options.ram

    def check_compiled(self, compiled: Compiled) -> None:
        """Check what is known before any file is written or compiler run.

        Raises:
            DoesNotFitError: the constants alone take more than the flash limit.
        """
        from edgesmith.targets.c.fit import flash_shortfall

        limit, used = self.describe().flash_bytes, compiled.constant_bytes
        if limit is not None and used > limit:
            raise flash_shortfall(compiled, used, limit, "the constants alone need")

    @abstractmethod
    def firmware(self, compiled: Compiled) -> BuildPlan:
        """What else the artifact has, and the commands that build it.

        Paths of files and the main artifact are relative to the folder of the library.
        """

    @abstractmethod
    def images(self, products: BuildProducts) -> Sequence[Path]:
        """Every linked image of the artifact: what ships, and what runs in its place here."""

    def build(self, graph: Graph) -> BuildPlan:
        data = write_graph(graph)
        compiled = _compiled(data, self.compile_options())
        self.check_compiled(compiled)
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
        """The graph that the artifact states, once the images are found to hold its integers.

        Every constant of every linked image is compared with what compiling the stated graph
        gives: weights, biases, multipliers, shifts, tables, and the arguments of all calls.

        Raises:
            ParityError: an image holds something else.
        """
        from edgesmith.targets.c.image import differences, read_image

        graph = read_graph((Path(products.folder) / GRAPH_FILE).read_bytes())
        compiled = self.compiled(products)
        for path in self.images(products):
            found = next(differences(read_image(path), compiled, self.options.prefix), None)
            if found is not None:
                raise ParityError(
                    f"{path.name!r} of target {self.name!r} {found}",
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
