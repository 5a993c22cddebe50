"""The spec: what a user writes in YAML, as frozen dataclasses.

Field names, types and bounds here *are* the YAML schema; `lint.load_spec` reads
a file into a `Spec` and `json_schema` prints the schema for editors. Parameters
of stages belong to the stages (see `stage.py`); here they are checked data.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, JsonValue

from edgesmith.pipeline.jsonvalue import adapter

if TYPE_CHECKING:
    from edgesmith.pipeline.registry import Registries

SPEC_VERSION = 1
SPLIT_NAMES = ("train", "calibration", "selection", "test")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Arguments = dict[str, JsonValue]


class _Strict:
    """Unknown keys are errors."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class TorchModel(_Strict):
    """A torch module made by a factory, with its weights from a checkpoint or a trainer.

    `input_shape` is one sample without its batch axis, channels first.
    """

    kind: Literal["torch"]
    factory: Text
    args: Arguments = field(default_factory=dict)
    checkpoint: Text | None = None
    trainer: Text | None = None
    input_shape: Annotated[tuple[Count, ...], Field(min_length=1, max_length=5)]

    def __post_init__(self) -> None:
        if self.checkpoint is not None and self.trainer is not None:
            raise ValueError("`trainer` and `checkpoint` are both given; weights have one source")
        if self.checkpoint is None and self.trainer is None:
            raise ValueError("neither `checkpoint` nor `trainer` says where the weights come from")


@dataclass(frozen=True, kw_only=True)
class FileModel(_Strict):
    """A model that is quantized already: an .onnx (QDQ) or .tflite file."""

    kind: Literal["file"]
    path: Annotated[str, Field(pattern=r"(?i)\.(onnx|tflite)$")]


ModelSpec = Annotated[TorchModel | FileModel, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class SplitSpec(_Strict):
    """A data split: a factory, its arguments, and how many of its first samples to take."""

    factory: Text
    args: Arguments = field(default_factory=dict)
    limit: Count | None = None


@dataclass(frozen=True, kw_only=True)
class DataSpec(_Strict):
    """The splits. `calibration` is needed to quantize; `train` and `selection` to train."""

    train: SplitSpec | None = None
    calibration: SplitSpec | None = None
    selection: SplitSpec | None = None
    test: SplitSpec
    labels: tuple[Text, ...] | None = None

    def splits(self) -> dict[str, SplitSpec]:
        """The splits that are given, by name."""
        named = {name: getattr(self, name) for name in SPLIT_NAMES}
        return {name: split for name, split in named.items() if split is not None}


@dataclass(frozen=True, kw_only=True)
class LatencyBudget(_Strict):
    """A limit in milliseconds on a percentile of single-sample latency."""

    percentile: Literal["median", "p90", "p99"] = "median"
    max: Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class Budgets(_Strict):
    """What a deployment must meet. Absent budgets are not checked."""

    accuracy_drop_points: Percent | None = None
    agreement_percent: Percent | None = None
    latency_ms: LatencyBudget | None = None
    size_bytes: Count | None = None
    flash_bytes: Count | None = None
    ram_bytes: Count | None = None


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """A stage that the spec names, and its parameters as checked data."""

    stage: str
    parameters: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SpecDocument(_Strict):
    """One YAML document."""

    spec_version: Literal[1]
    name: Name
    model: ModelSpec
    data: DataSpec
    stages: tuple[StageEntry, ...] = ()
    targets: Annotated[tuple[Text, ...], Field(min_length=1)]
    budgets: Budgets = field(default_factory=Budgets)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


@dataclass(frozen=True, kw_only=True)
class Spec(SpecDocument):
    """A document with where it came from; relative paths in it start at `folder`."""

    path: str
    text: str

    @classmethod
    def of(cls, document: SpecDocument, path: Path, text: str) -> Spec:
        values = {each.name: getattr(document, each.name) for each in fields(SpecDocument)}
        return cls(**values, path=str(path), text=text)

    @property
    def folder(self) -> Path:
        """The folder of the spec file."""
        return Path(self.path).resolve().parent

    @property
    def sha256(self) -> str:
        """Digest of the spec's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def parameters(self, stage: str) -> dict[str, JsonValue]:
        """What the spec says about a stage; empty when it says nothing."""
        return next((e.parameters for e in self.stages if e.stage == stage), {})

    def has_stage(self, stage: str) -> bool:
        """Whether the spec names the stage."""
        return any(entry.stage == stage for entry in self.stages)


def canonical_json(data: object) -> str:
    """JSON text that is the same for equal data: keys sorted, no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def json_schema(registries: Registries) -> dict[str, Any]:
    """JSON Schema of the spec, with the parameters of every discovered stage.

    Raises:
        PluginError: a stage cannot be imported.
    """
    schema = adapter(SpecDocument).json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    definitions.pop("StageEntry")
    variants = []
    for name in registries.stages.names():
        stage = adapter(registries.stages.get(name)).json_schema()
        definitions.update(stage.pop("$defs", {}))
        stage["properties"] = {"stage": {"const": name}, **stage.get("properties", {})}
        stage["required"] = ["stage", *stage.get("required", [])]
        definitions[f"stage:{name}"] = stage
        variants.append({"$ref": f"#/$defs/stage:{name}"})
    schema["properties"]["stages"]["items"] = {"oneOf": variants}
    names = "|".join(map(re.escape, registries.targets.names()))
    schema["properties"]["targets"]["items"] = {
        "type": "string",
        "pattern": f"^({names})(@[^,]+)?(,[a-z]+=[^,]+)*$",
        "examples": list(registries.targets.names()),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "edgesmith spec",
    }
