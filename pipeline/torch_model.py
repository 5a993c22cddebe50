"""The user's torch model: built by its factory, with weights that were loaded safely."""

from __future__ import annotations

import pickle
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import nn

from edgesmith.pipeline.errors import (
    CheckpointError,
    FactoryError,
    NonFiniteWeightsError,
    UnsafeCheckpointError,
    UnsupportedError,
)
from edgesmith.pipeline.factories import call_factory, resolve_factory, user_code
from edgesmith.pipeline.splits import read_split

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec, TorchModel
    from edgesmith.pipeline.stage import StageContext

FloatArray = npt.NDArray[np.float32]

WEIGHTS = "weights.safetensors"
FLOAT_ONNX = "float.onnx"
_OPSET = 17
_PICKLE = b"\x80"  # first byte of a pickle since protocol 2
_DAMAGE = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, AttributeError, LookupError),
    *(AssertionError, OverflowError, struct.error),
)
"""What torch raises, besides `UnpicklingError`, for files with wrong bytes in them."""


def build(model: TorchModel, folder: Path) -> nn.Module:
    """The module that the spec's factory makes, with its initial weights.

    Raises:
        FactoryError: the factory raised, or did not return a torch module.
    """
    built = call_factory(model.factory, model.args, folder)
    if not isinstance(built, nn.Module):
        raise FactoryError(
            f"model factory {model.factory!r} returned {type(built).__name__}",
            fix="return a torch.nn.Module",
        )
    return built


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from safetensors, or from a torch file without running code in it.

    A dict with a "state_dict" or "model" entry is taken as that entry.

    Raises:
        CheckpointError: missing, truncated, or not a state dict.
        UnsafeCheckpointError: loading it would run pickled code.
    """
    start = _start(path)
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(str(path))
        except (OSError, safetensors.SafetensorError) as error:
            raise _unreadable(path, error) from error
    if not start.startswith((b"PK", _PICKLE)):  # a .zip archive or, before torch 1.6, a pickle
        raise _unreadable(path, "it is no torch file")
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeCheckpointError(
            f"checkpoint {path} holds pickled objects other than tensors, or is damaged; "
            "nothing in it was run",
            fix="save `model.state_dict()` alone, best with safetensors.torch.save_file",
        ) from error
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(torch.is_tensor(v) for v in loaded.values()):
        raise CheckpointError(
            f"checkpoint {path} is no state dict (name -> tensor)",
            fix="save `model.state_dict()`",
        )
    return loaded


def _start(path: Path) -> bytes:
    """The first bytes of a file that exists and is not empty."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not start:
        raise _unreadable(path, "it is empty")
    return start


def _unreadable(path: Path, why: Exception | str) -> CheckpointError:
    plain = isinstance(why, str | OSError | RuntimeError)
    what = str(why) if plain else f"{type(why).__name__}: {why}"
    return CheckpointError(
        f"checkpoint {path} cannot be read: {what}".split("\n", maxsplit=1)[0],
        fix="check that the file is complete and is a safetensors or torch file",
    )


def load_weights(module: nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Put weights into a module, in place, and switch it to evaluation.

    Raises:
        CheckpointError: names or shapes do not fit; the first few are named.
        NonFiniteWeightsError: a weight is NaN or infinite.
    """
    own = module.state_dict()
    problems = [f"no weights for {name!r}" for name in own if name not in weights]
    problems += [f"unknown weights {name!r}" for name in weights if name not in own]
    problems += [
        f"{name!r} is {list(value.shape)} in the checkpoint, {list(own[name].shape)} in the model"
        for name, value in weights.items()
        if name in own and value.shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise CheckpointError(
            f"{source} does not fit the model: {'; '.join(problems[:4])}{more}",
            fix="check the factory's `args`, or load the checkpoint of this very model",
        )
    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise NonFiniteWeightsError(
                f"{source}: {name!r} has NaN or infinite values",
                fix="train again with a lower learning rate, or take an earlier checkpoint",
            )
    module.load_state_dict(weights)
    module.eval()


def load_model(spec: Spec, folder: Path) -> nn.Module:
    """The trained model, from the output folder of the `load` stage.

    Raises:
        CheckpointError: the folder's weights do not fit the factory's model.
    """
    assert spec.model.kind == "torch"
    module = build(spec.model, spec.folder)
    load_weights(module, read_checkpoint(folder / WEIGHTS), "the loaded weights")
    return module


def prepare_model(model: TorchModel, context: StageContext) -> None:
    """Load or train the weights; write them and the float ONNX baseline."""
    spec = context.spec
    module = build(model, spec.folder)
    if model.checkpoint is not None:
        source = f"checkpoint {model.checkpoint!r}"
        load_weights(module, read_checkpoint(spec.folder / model.checkpoint), source)
    else:
        _train(model, module, context)
        load_weights(module, module.state_dict(), "the trained model")
    state = {name: value.clone() for name, value in module.state_dict().items()}
    safetensors.torch.save_file(state, str(context.folder / WEIGHTS))
    export_float(module, model.input_shape, context.folder / FLOAT_ONNX)


def _train(model: TorchModel, module: nn.Module, context: StageContext) -> None:
    assert model.trainer is not None
    train = resolve_factory(model.trainer, context.spec.folder)
    splits = [read_split(context.inputs["data"], name) for name in ("train", "selection")]
    with user_code(f"trainer {model.trainer!r}"):
        train(module, *splits, context.seed, context.progress)


def export_float(module: nn.Module, input_shape: tuple[int, ...], path: Path) -> None:
    """Write the float model as ONNX, batch of one.

    Raises:
        UnsupportedError: torch cannot export it.
    """
    example = torch.zeros(1, *input_shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (example,),
                str(path),
                dynamo=False,
                opset_version=_OPSET,
                input_names=["input"],
                output_names=["output"],
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError) as error:
        raise UnsupportedError(
            f"torch cannot export the float model to ONNX: {error}".split("\n")[0],
            fix="check `input_shape` and that the model runs on a batch of one",
        ) from error


@torch.no_grad()
def predict(module: nn.Module, inputs: FloatArray, batch: int = 64) -> FloatArray:
    """Outputs [samples, ...] of a module in evaluation mode for inputs [samples, *shape]."""
    parts = torch.from_numpy(inputs).split(batch)
    return np.concatenate([module(part).numpy() for part in parts])
