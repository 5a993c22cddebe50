"""What one deployment found: everything a report shows, as one JSON document.

`DeploymentResult` is written as `result.json` in a target's folder of the run;
`reports/` reads nothing else. All numbers that were measured, simulated or
estimated are `Measurement`s and keep their kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgesmith.nas.values import SearchResult
from edgesmith.pipeline.values import Kind, Measurement
from edgesmith.prune.values import PruneResult
from edgesmith.quantize.allocation.values import Figure
from edgesmith.quantize.qat.values import QATResult


@dataclass(frozen=True)
class BudgetCheck:
    """One budget of the spec against what was found. `better` is "lower" or "higher".

    `value` is None for a budget that could not be checked, which is never `met`; a note of
    the result says why. `kind` says how `value` came to be; None is shown as "kind not stated".
    """

    name: str
    limit: float
    value: float | None
    unit: str
    better: str
    met: bool
    kind: Kind | None = None


@dataclass(frozen=True)
class AccuracyRow:
    """Accuracy of one form of the model on the test split, percent, with a Wilson interval."""

    form: str  # "float", "fake-quantized", "onnxruntime", "fixed-point", "reference", "deployed"
    accuracy: Measurement


@dataclass(frozen=True)
class LatencySeries:
    """One model's timed runs: summary measurements (ms) and the raw samples (ms)."""

    form: str  # "float" or "deployed"
    median: Measurement
    p90: Measurement
    p99: Measurement
    samples_ms: tuple[float, ...]


@dataclass(frozen=True)
class Latency:
    """Float and deployed model, timed interleaved in one run. `speedup` is float / deployed."""

    deployed: LatencySeries
    float_baseline: LatencySeries | None
    speedup: Measurement | None
    threads: int
    warmups: int


@dataclass(frozen=True)
class DriftEdge:
    """How one tensor differs between two consecutive forms of the model.

    LSB figures are in units of the tensor's scale; SQNR in dB (None: no difference).
    """

    edge: str  # "float -> fake-quantized", "fake-quantized -> onnxruntime", ...
    max_lsb: float
    mean_lsb: float
    differing: float  # fraction of elements that differ by at least one LSB
    sqnr_db: float | None


@dataclass(frozen=True)
class LayerFormats:
    """How one operator's numbers are stored, and what its weights are, as shipped.

    Args:
        reads, writes: activation formats of its first input and its output.
        weight: format of its weights; None where it has none, as then the counts are 0.
        zeros: weights whose code stands for exactly zero.
        code_bytes: of the weights alone, without biases and scales.
        channels: output channels before and after pruning; None where nothing was pruned.
    """

    reads: str
    writes: str
    weight: str | None
    per_channel: bool
    weights: int
    zeros: int
    code_bytes: int
    channels: tuple[int, int] | None = None


@dataclass(frozen=True)
class LayerRow:
    """One operator of the deployed graph.

    Args:
        weight_bytes: of all its constants, as stored.
        formats: None for a result of an edgesmith that did not record them.
    """

    index: int
    name: str
    op: str
    output_shape: tuple[int, ...]
    weight_bits: int | None
    activation_bits: int
    macs: int
    weight_bytes: int
    drift: tuple[DriftEdge, ...] = ()
    formats: LayerFormats | None = None


@dataclass(frozen=True)
class DeviceLayer:
    """One layer function on the device: operators fused into one call, or one band of them.

    `instructions` and `cycles` are means over the samples; cycles are estimated.
    """

    name: str
    op: str
    kernel: str
    macs: int
    instructions: float
    cycles: float | None
    scratch_bytes: int


@dataclass(frozen=True)
class ArenaSlot:
    """Bytes of the arena, in use from layer `first` to layer `last`, both included.

    -1 is before the first layer, the number of layers after the last. `role` is "input",
    "output", "activation" or "scratch".
    """

    name: str
    role: str
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class FlashPart:
    """Flash of one purpose: "weights", "bias", "requantization", "table", "kernel", ...

    `symbols` are the largest of it, with their bytes.
    """

    purpose: str
    bytes: int
    symbols: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class ZerosGain:
    """What keeping weights without their zeros saved and cost on a device.

    Compared with an image of the same network that stores every weight.

    Args:
        layers: calls whose weights are kept so.
        flash: bytes saved.
        instructions, share: executed more per inference, and in percent.
        arena: bytes by which expanded weights make the arena larger.
    """

    layers: int
    flash: Measurement
    instructions: Measurement
    share: Measurement
    arena: Measurement


@dataclass(frozen=True)
class Device:
    """What a microcontroller target found by running its image in an emulator.

    `flash` and `ram` are of an image with nothing but the model; `limit`s are the board's or
    the user's, None where there is none. `timing` says what the estimate of cycles rests on.
    `plan` is how the arena was planned: "speed", "memory" or "bands"; `arena_bound` is the
    least arena that any plan of these layers needs.
    """

    core: str
    board: str | None
    clock_hz: int | None
    emulator: str
    timing: str
    instructions: Measurement
    cycles: Measurement | None
    time: Measurement | None  # ms
    cycles_per_mac: Measurement | None
    flash: Measurement
    flash_limit: int | None
    ram: Measurement
    ram_limit: int | None
    stack: Measurement
    arena: Measurement
    arena_bound: int
    arena_optimal: bool
    plan: str
    layers: tuple[DeviceLayer, ...]
    slots: tuple[ArenaSlot, ...]
    flash_parts: tuple[FlashPart, ...]
    flash_sections: dict[str, int]
    ram_sections: dict[str, int]
    mnemonics: dict[str, int]  # executed per inference, most frequent first
    sources: dict[str, str]  # files of the library -> what they are
    zeros: ZerosGain | None = None  # None where every weight is stored plainly


@dataclass(frozen=True)
class Confusion:
    """counts[true][predicted]."""

    labels: tuple[str, ...]
    float_counts: tuple[tuple[int, ...], ...]
    deployed_counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ParityRow:
    """One tensor as searched against as shipped."""

    tensor: str
    role: str  # "activation", "weight", "bias"
    dtype: str
    elements: int
    same: bool
    difference: str = ""


@dataclass(frozen=True)
class Parity:
    """The parity report: the run fails unless `different` is 0."""

    compared: int
    different: int
    rows: tuple[ParityRow, ...]


@dataclass(frozen=True)
class Artifact:
    """A file that the run leaves, relative to the report."""

    name: str
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """Enough to make the same files again."""

    spec_path: str
    spec_text: str
    spec_sha256: str
    edgesmith_version: str
    machine: dict[str, str]
    versions: dict[str, str]
    digests: dict[str, str]  # data splits, checkpoint, stage outputs
    stages: tuple[tuple[str, float, bool], ...] = ()  # (stage, seconds, from cache)


@dataclass(frozen=True)
class DeploymentResult:
    """Everything one report shows."""

    name: str
    target: str
    target_title: str
    ok: bool
    budgets: tuple[BudgetCheck, ...]
    accuracy: tuple[AccuracyRow, ...]
    agreement: Measurement | None  # percent of test samples where deployed and float predict alike
    latency: Latency | None
    size: tuple[Measurement, ...]  # bytes: deployed file, float file, weights
    memory: tuple[Measurement, ...]  # bytes: peak memory, activation arena
    layers: tuple[LayerRow, ...]
    worst_layers: tuple[str, ...]
    confusion: Confusion | None
    parity: Parity | None
    artifacts: tuple[Artifact, ...]
    provenance: Provenance
    notes: tuple[str, ...] = ()
    schema_version: int = field(default=1)
    drift_samples: int | None = None  # how many test samples the drift figures rest on
    device: Device | None = None
    pruning: PruneResult | None = None
    allocation: Figure | None = None
    training: QATResult | None = None  # quantization-aware
    search: SearchResult | None = None  # the candidate that was deployed is its `chosen`
