"""`load`: the model with its trained weights, or the model file as it is.

Output for a torch model: `weights.safetensors` and `float.onnx` (the float
baseline). For a file: `model.onnx` or `model.tflite`, byte for byte.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.stage import Stage, StageContext

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec


@dataclass(frozen=True)
class Load(Stage):
    """Build the model and load or train its weights.

    The key covers what `data` covers for its factories: sources, arguments, the files
    and folders that arguments name, and those declared in `CACHE_FILES`.
    """

    name: ClassVar[str] = "load"

    def requires(self, spec: Spec) -> tuple[str, ...]:
        trained = spec.model.kind == "torch" and spec.model.trainer is not None
        return ("data",) if trained else ()

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.file_identity import argument_paths, identities
        from edgesmith.pipeline.sources import declared_files, source_digests
        from edgesmith.pipeline.spec import canonical_json
        from edgesmith.pipeline.versions import installed

        model = spec.model
        if model.kind == "file":
            return {"model file": _digest(spec, model.path)}
        parts = {
            "model factory": canonical_json(source_digests(model.factory, spec.folder)),
            "model": canonical_json([model.factory, model.args, list(model.input_shape)]),
            **installed("torch", "onnx", "numpy"),
        }
        named = argument_paths(model.args, spec.folder)
        files = {f"file {text}": path for text, path in named.items()}
        for text, path in declared_files(model.factory, spec.folder).items():
            files[f"file of factory: {text}"] = path
        if model.checkpoint is not None:
            parts["checkpoint"] = _digest(spec, model.checkpoint)
        if model.trainer is not None:
            parts["trainer"] = canonical_json(
                [model.trainer, source_digests(model.trainer, spec.folder)]
            )
            for text, path in declared_files(model.trainer, spec.folder).items():
                files[f"file of trainer: {text}"] = path
        return parts | identities(files)

    def run(self, context: StageContext) -> None:
        model = context.spec.model
        if model.kind == "file":
            source = context.spec.folder / model.path
            suffix = source.suffix.lower()
            (context.folder / f"model{suffix}").write_bytes(source.read_bytes())
            return
        from edgesmith.pipeline.torch_model import prepare_model

        prepare_model(model, context)


def _digest(spec: Spec, path: str) -> str:
    """SHA-256 of a file of the spec; a file that is missing is an error of the run, not the plan.

    Raises:
        CheckpointError: it cannot be read.
    """
    from edgesmith.pipeline.errors import CheckpointError

    try:
        with (spec.folder / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path!r}: {error.strerror}", fix="check the path in the spec"
        ) from error
