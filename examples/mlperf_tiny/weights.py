"""The official trained weights of the four models, from their Keras archives.

An archive (.npz) holds arrays under Keras's names: kernels [height, width, in,
out], depthwise kernels [height, width, channels, 1], dense kernels [in, out]
and batch norm's four vectors. Layers of one kind are numbered in the order of
the model (`conv2d`, `conv2d_1`, ...), or all layers through
(`layer_with_weights-0`, ...).
"""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import CheckpointError

from location import data_file

if TYPE_CHECKING:
    from edgesmith.pipeline.stage import Progress

Array = npt.NDArray[np.float32]
Axes = tuple[int, ...]
Variable = tuple[str, str, Axes]
"""Attribute in torch, variable in Keras, Keras axes in torch's order."""
MAX_BYTES = 64 << 20
CACHE_FILES = (  # what `official` loads
    "${EDGESMITH_DATA}/mlperf_tiny/ic_resnet8_weights.npz",
    "${EDGESMITH_DATA}/mlperf_tiny/kws_dscnn_weights.npz",
    "${EDGESMITH_DATA}/mlperf_tiny/vww_mobilenetv1_025_96_weights.npz",
    "${EDGESMITH_DATA}/mlperf_tiny/ad_autoencoder_weights.npz",
)

NORM_VARIABLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
OUT_IN_HEIGHT_WIDTH = (3, 2, 0, 1)
CHANNEL_ONE_HEIGHT_WIDTH = (2, 3, 0, 1)


def official(
    model: nn.Module, train: object, selection: object, seed: int, progress: Progress
) -> None:
    """A spec's trainer that trains nothing: it gives a model of `models.py` its official weights.

    Raises:
        DataError: the data folder or the archive is missing.
        CheckpointError: the archive does not fit the model.
    """
    load_official(model)


def load_official(model: nn.Module, *, skip: tuple[str, ...] = ()) -> None:
    """Load `model.archive` from the data folder; modules named in `skip` keep what they have."""
    load(model, data_file(f"mlperf_tiny/{model.archive}"), skip=skip)


def load(model: nn.Module, path: Path, *, skip: tuple[str, ...] = ()) -> None:
    """Copy a Keras archive into a model, in place, and set it to inference.

    Every layer must be found and every array used once, but for those that
    `model.unused` names.

    Raises:
        CheckpointError: the file is no archive of arrays, or does not fit the model.
    """
    arrays = _read(path)
    numbered_through = any(name.startswith("layer_with_weights-") for name in arrays)
    found: list[tuple[Tensor, Array]] = []
    count: Counter[str] = Counter()
    for name, module in model.named_modules():
        kind = _kind(module)
        if kind is None:
            continue
        layer = _layer_name(kind, count, numbered_through)
        count.update((kind, "all"))
        for attribute, variable, order in _variables(module):
            array = _take(arrays, f"{layer}/{variable}", path)
            if name not in skip:
                tensor = module.state_dict()[attribute]
                found.append((tensor, _fitted(array, order, tensor, f"{path}: {name}.{attribute}")))
    left = arrays.keys() - set(getattr(model, "unused", ()))
    if left:
        raise CheckpointError(
            f"{path} has {len(left)} arrays that the model does not use, such as {min(left)!r}",
            fix="use the archive that belongs to the model",
        )
    for tensor, array in found:
        tensor.copy_(torch.from_numpy(array))
    model.eval()


def _read(path: Path) -> dict[str, Array]:
    """Name -> array; names lose Keras's `:0`."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(each.file_size for each in archive.infolist())
        if size > MAX_BYTES:
            raise CheckpointError(
                f"{path} unpacks to {size} bytes; the largest official archive has 1 MB",
                fix="use an official archive",
            )
        with np.load(path, allow_pickle=False) as arrays:
            return {name.removesuffix(":0"): arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is not a NumPy archive: {error}", fix="use an official archive"
        ) from error


def _kind(module: nn.Module) -> str | None:
    """Keras's name for a layer with weights."""
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return "batch_normalization"
    if isinstance(module, nn.Linear):
        return "dense"
    if isinstance(module, nn.Conv2d):
        return "depthwise_conv2d" if module.groups > 1 else "conv2d"
    return None


def _layer_name(kind: str, count: Counter[str], numbered_through: bool) -> str:
    if numbered_through:
        return f"layer_with_weights-{count['all']}"
    return f"{kind}_{count[kind]}" if count[kind] else kind


def _variables(module: nn.Module) -> list[Variable]:
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return [(attribute, variable, (0,)) for attribute, variable in NORM_VARIABLES.items()]
    kernel: Variable
    if isinstance(module, nn.Linear):
        kernel = ("weight", "kernel", (1, 0))
    elif isinstance(module, nn.Conv2d) and module.groups > 1:
        kernel = ("weight", "depthwise_kernel", CHANNEL_ONE_HEIGHT_WIDTH)
    else:
        kernel = ("weight", "kernel", OUT_IN_HEIGHT_WIDTH)
    return [kernel] if module.bias is None else [kernel, ("bias", "bias", (0,))]


def _take(arrays: dict[str, Array], name: str, path: Path) -> Array:
    if name not in arrays:
        raise CheckpointError(
            f"{path} has no array {name!r}, which the model needs",
            fix="use the archive that belongs to the model",
        )
    return arrays.pop(name)


def _fitted(array: Array, order: Axes, destination: Tensor, name: str) -> Array:
    """The array in torch's axis order."""
    wanted = tuple(destination.shape)
    fits = array.ndim == len(order) and tuple(array.shape[axis] for axis in order) == wanted
    if not fits or array.dtype != np.float32:
        raise CheckpointError(
            f"{name} is {array.dtype} {array.shape} in Keras's axis order, which does not "
            f"become float32 {wanted}",
            fix="use the archive that belongs to the model",
        )
    return np.ascontiguousarray(array.transpose(order))
