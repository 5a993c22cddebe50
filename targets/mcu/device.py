"""Everything that a report shows of a deployment on a microcontroller, from one counted run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesmith.pipeline.results import ArenaSlot, Device, DeviceLayer, FlashPart, ZerosGain
from edgesmith.pipeline.values import Kind, Measurement
from edgesmith.targets.c.exchange import as_stored, output_types
from edgesmith.targets.c.memory.lifetimes import UNIT_SEPARATOR, of_call
from edgesmith.targets.mcu.counting import InstructionCount, Profile
from edgesmith.targets.mcu.cycles import TIMINGS, CycleEstimate, Cycles, estimate
from edgesmith.targets.mcu.elf import FlashMap, flash_map
from edgesmith.targets.mcu.emulator import Firmware, run
from edgesmith.targets.mcu.histogram import disassemble, histogram
from edgesmith.targets.mcu.toolchain import BARE_ELF, HARNESS_ELF
from edgesmith.targets.mcu.zeros_gain import zeros_gain

if TYPE_CHECKING:
    from edgesmith.pipeline.values import BuildProducts
    from edgesmith.targets.base import Codes
    from edgesmith.targets.c.compiler import Compiled
    from edgesmith.targets.mcu.target import MicrocontrollerTarget

_SYMBOLS = 5
_EMULATOR = "QEMU {machine}, instructions counted by a plugin"


def examine(
    target: MicrocontrollerTarget, products: BuildProducts, inputs: Sequence[Codes]
) -> Device:
    """Run samples with instruction counting and gather what the images and the plan say.

    Args:
        inputs: codes of each graph input, [samples, *shape].
    """
    folder = Path(products.folder)
    graph = target.shipped(products)
    firmware = Firmware.in_folder(folder, target.core, target.options.prefix)
    emulated = run(firmware, as_stored(graph, inputs), output_types(graph), count=True)
    assert emulated.profile is not None
    code = disassemble(folder / HARNESS_ELF, target.core)
    compiled = target.compiled(products)
    image = flash_map(folder / BARE_ELF, target.options.prefix)
    return _Account(
        target=target,
        compiled=compiled,
        image=image,
        profile=emulated.profile,
        cycles=estimate(emulated.profile, code, TIMINGS[target.core.timing]),
        mnemonics=histogram(emulated.profile.blocks(), code).by_mnemonic,
        stack_bytes=emulated.stack_bytes,
        zeros=zeros_gain(
            target, graph, compiled, inputs, image.flash_bytes, emulated.profile.invoke.mean
        ),
    ).device()


@dataclass(frozen=True, eq=False)
class _Account:
    """What tools found, on its way to a `Device`."""

    target: MicrocontrollerTarget
    compiled: Compiled
    image: FlashMap
    profile: Profile
    cycles: CycleEstimate
    mnemonics: Mapping[str, int]
    stack_bytes: int
    zeros: ZerosGain | None

    def device(self) -> Device:
        board, facts = self.target.preset(), self.target.describe()
        total = self.cycles.total.nominal
        macs = sum(call.macs for call in self.compiled.program.calls)
        memory = self.compiled.memory
        used = self.image.ram_bytes + self.stack_bytes
        invoke, ms = self.profile.invoke, 1e3 / board.clock_hz
        return Device(
            core=self.target.core.title,
            board=board.title,
            clock_hz=board.clock_hz,
            emulator=_EMULATOR.format(machine=self.target.core.machine.name),
            timing=self.cycles.basis,
            instructions=self._found(
                "instructions", invoke.mean, "instructions", {"range": _span(invoke)}
            ),
            cycles=self._guess("cycles", total, "cycles", self.cycles.total),
            time=self._guess("time", total * ms, "ms", self.cycles.total.times(ms)),
            cycles_per_mac=self._guess("cycles per MAC", total / macs, "") if macs else None,
            flash=self._found("flash", self.image.flash_bytes, "bytes"),
            flash_limit=facts.flash_bytes,
            ram=self._found("RAM", used, "bytes"),
            ram_limit=facts.ram_bytes,
            stack=self._found("stack high-water mark", self.stack_bytes, "bytes"),
            arena=self._found("arena", memory.arena_bytes, "bytes"),
            arena_bound=memory.lower_bound,
            arena_optimal=memory.optimal,
            plan=self.compiled.kind.value,
            layers=tuple(self._layers()),
            slots=tuple(self._slots()),
            flash_parts=tuple(self._parts()),
            flash_sections=dict(self.image.flash),
            ram_sections=dict(self.image.ram),
            mnemonics={
                name: round(count / self.profile.samples) for name, count in self.mnemonics.items()
            },
            sources=self._sources(),
            zeros=self.zeros,
        )

    def _found(
        self, metric: str, value: float, unit: str, conditions: dict[str, str] | None = None
    ) -> Measurement:
        samples, name = self.profile.samples, self.target.name
        given = conditions or {}
        return Measurement(metric, value, unit, Kind.SIMULATED, name, samples, conditions=given)

    def _guess(
        self, metric: str, value: float, unit: str, span: Cycles | None = None
    ) -> Measurement:
        digits = 3 if unit == "ms" else 0
        conditions = {} if span is None else {"range": _span(span, digits)}
        return Measurement(
            metric,
            value,
            unit,
            Kind.ESTIMATED,
            self.target.name,
            self.profile.samples,
            conditions=conditions,
        )

    def _layers(self) -> Iterator[DeviceLayer]:
        for call, layer in zip(self.compiled.program.calls, self.profile.layers, strict=True):
            yield DeviceLayer(
                name=call.name,
                op=call.kind,
                kernel=call.function,
                macs=call.macs,
                instructions=layer.instructions.mean,
                cycles=self.cycles.layers[layer.name].nominal,
                scratch_bytes=sum(of_call(call).values()),
            )

    def _slots(self) -> Iterator[ArenaSlot]:
        program = self.compiled.program
        inputs = {program.place(name)[0] for name in program.inputs}
        outputs = {program.place(name)[0] for name in program.outputs}
        scratch = {name for call in program.calls for name in of_call(call)}
        for item in self.compiled.memory.timeline:
            role = "activation"
            if item.name in scratch:
                role = "scratch"
            elif item.name in outputs:
                role = "output"
            elif item.name in inputs:
                role = "input"
            yield ArenaSlot(
                item.name.replace(UNIT_SEPARATOR, " "),
                role,
                item.offset,
                item.bytes,
                item.first,
                item.last,
            )

    def _parts(self) -> Iterator[FlashPart]:
        in_flash = [each for each in self.image.symbols if each.section in self.image.flash]
        for purpose, size in self.image.flash_by_purpose.items():
            own = [each for each in in_flash if each.purpose is purpose]
            largest = sorted(own, key=lambda each: (-each.bytes, each.name))[:_SYMBOLS]
            if size:
                yield FlashPart(
                    purpose.value, size, tuple((each.name, each.bytes) for each in largest)
                )

    def _sources(self) -> dict[str, str]:
        prefix = self.target.options.prefix
        known = {
            f"{prefix}.h": "the interface: include this",
            f"{prefix}.c": "layers and their order",
            f"{prefix}_data.c": "weights and other constants",
            f"{prefix}_data.h": "their declarations",
            f"{prefix}_vectors.h": "inputs and expected outputs, to check a device",
            "CMakeLists.txt": "a static library, for CMake",
            "README.md": "how to use it",
        }
        names = {*self.compiled.library.files}
        if self.target.options.vectors:
            names.add(f"{prefix}_vectors.h")
        return {name: known.get(name, "kernels") for name in sorted(names)}


def _span(span: Cycles | InstructionCount, digits: int = 0) -> str:
    return f"{span.low:,.{digits}f} to {span.high:,.{digits}f}"
