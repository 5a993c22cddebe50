"""Zeros that stay: masks over weights, kept through any later training.

N:M patterns run along the input channels, innermost in memory of channels-last kernels. A zero
weight is code 0 in every symmetric format but binary, and neither nearest nor learned rounding
nor GPTQ moves it, so masks survive quantization; training afterwards has to apply them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import CacheError
from edgesmith.prune.options import Sparsity
from edgesmith.prune.surgery import Conv

MASKS = "masks.safetensors"
Masks = Mapping[str, Tensor]
"""Parameter name -> bool, True where a weight stays."""


@torch.no_grad()
def magnitude_masks(model: nn.Module, sparsity: Sparsity) -> dict[str, Tensor]:
    """Masks for the weights of convolutions and linear layers, by magnitude.

    Inputs that do not fill a last group of m stay dense.
    """
    made = {}
    for name, layer in model.named_modules():
        excluded = any(fnmatchcase(name, rule) for rule in sparsity.exclude)
        if isinstance(layer, (*Conv, nn.Linear)) and not excluded:
            made[f"{name}.weight" if name else "weight"] = _mask(layer.weight, sparsity)
    return made


def _mask(weight: Tensor, sparsity: Sparsity) -> Tensor:
    if sparsity.pattern == "n:m":
        return _n_of_m(weight, sparsity.kept, sparsity.of)
    gone = int(weight.numel() * sparsity.zeros)
    order = weight.abs().flatten().argsort(stable=True)
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[order[:gone]] = False
    return mask.reshape(weight.shape)


def _n_of_m(weight: Tensor, kept: int, of: int) -> Tensor:
    rows = weight.movedim(1, -1)
    whole = rows.shape[-1] // of * of
    mask = torch.ones(rows.shape, dtype=torch.bool)
    if whole:
        groups = rows[..., :whole].abs().reshape(*rows.shape[:-1], -1, of)
        order = groups.argsort(dim=-1, descending=True, stable=True)
        part = torch.zeros(groups.shape, dtype=torch.bool)
        part.scatter_(-1, order[..., :kept], torch.ones_like(order, dtype=torch.bool)[..., :kept])
        mask[..., :whole] = part.reshape(*rows.shape[:-1], whole)
    return mask.movedim(-1, 1).contiguous()


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set what is masked to zero, in place; call it after every optimizer step."""
    for name, mask in masks.items():
        model.get_parameter(name).mul_(mask)


def zeros(model: nn.Module) -> dict[str, float]:
    """Layer -> share of its weights that is exactly zero."""
    return {
        name: float((layer.weight == 0).double().mean())
        for name, layer in model.named_modules()
        if isinstance(layer, (*Conv, nn.Linear))
    }


def save_masks(folder: Path, masks: Masks) -> None:
    """Write masks into an existing folder."""
    safetensors.torch.save_file({n: m.contiguous() for n, m in masks.items()}, folder / MASKS)


def load_masks(folder: Path) -> dict[str, Tensor]:
    """What `save_masks` wrote; empty where nothing was.

    Raises:
        CacheError: the file is damaged.
    """
    path = folder / MASKS
    if not path.exists():
        return {}
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CacheError(
            f"the masks in {folder} cannot be read: {error}",
            fix="run the prune stage again with --force prune",
        ) from error
