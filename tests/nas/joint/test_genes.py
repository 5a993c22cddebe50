"""The joint space: limited to targets, silent in dropped blocks, and what choices mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgesmith.nas.counts import MACS
from edgesmith.nas.genes import offered
from edgesmith.nas.rounding import LayerFormats
from edgesmith.nas.seeds import corners
from edgesmith.pipeline.errors import SearchError
from edgesmith.pipeline.target_facts import get_target
from edgesmith.quantize.allocation.costs import (
    BIT_OPERATIONS,
    WEIGHT_BYTES,
    multiply_accumulates,
    weight_bytes,
)
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.options import WEIGHT_FORMATS
from edgesmith.quantize.ptq import quantize
from tests.nas.joint.worlds import joint
from tests.nas.nets import NETS
from tests.prune.nets import batch

NAMES = [name for name in NETS if name != "kernels"]  # mirrored padding has no integer form


def test_only_what_every_target_takes_is_offered() -> None:
    formats = ("int8", "int2", "int4"), ("int8", "int16")
    host, litert = (get_target(name).describe() for name in ("c-host", "cpu-litert"))
    assert offered(*formats, [host]).weights == ("int8", "int4", "int2")
    assert offered(*formats, [host]).activations == ("int16", "int8")
    both = offered(*formats, [host, litert])
    assert both.activations == ("int16", "int8")
    assert both.weights == ("int8",), "LiteRT takes no 4-bit weights beside 16-bit activations"
    assert offered(formats[0], ("int8",), [host, litert]).weights == ("int8", "int4")
    with pytest.raises(SearchError, match="takes what `formats` offers") as caught:
        offered(("fp8-e4m3",), ("int8",), [host])
    assert "weights of int1" in caught.value.fix


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_those_of_the_sub_network(name: str) -> None:
    found = joint(name)
    space, shape = found.genes.space, found.sample_shape
    rng = np.random.default_rng(0)
    for _ in range(3):
        candidate = space.drawn(rng)
        choices = space.choices(candidate)
        module = found.network.extract(found.genes.architecture(choices))
        network = prepare(module, torch.zeros(1, *shape))
        layers = {step.name for step in network.layer_steps()}
        counted = found.counts(candidate)
        macs = multiply_accumulates(network, shape)
        assert (
            counted[MACS]
            == sum(macs.values())
            == found.counts.macs(found.genes.architecture(choices))
        )
        stored = {
            layer: weight_bytes(
                network.layer(layer).weight.numel(),
                WEIGHT_FORMATS[found.genes.weight_format(layer, choices)],
            )
            for layer in layers
        }
        assert counted[WEIGHT_BYTES] == sum(stored.values())
        assert counted[BIT_OPERATIONS] >= 2 * 8 * counted[MACS]


@pytest.mark.parametrize("name", ["resnet8", "mobilenet-v2", "vit", "encoder"])
def test_what_lies_in_a_dropped_block_is_silent(name: str) -> None:
    found = joint(name)
    space = found.genes.space
    rng = np.random.default_rng(1)
    for each in (d for d in found.elastic.dimensions if d.choices == (1, 0)):
        choices = {**space.choices(space.drawn(rng)), each.name: 0}
        candidate = space.of(choices)
        silent = [
            g.name for g, on in zip(space.genes, space.active(candidate), strict=True) if not on
        ]
        inside = [
            gene.name
            for gene in space.genes
            if gene.name.partition(":")[2].startswith(f"{each.subject}.")
            and not gene.name.startswith("activations:")  # their sets may reach out of the block
        ]
        assert set(inside) <= set(silent)
        for other in silent:
            changed = {
                **space.choices(candidate),
                other: space.genes[space.places[other]].choices[-1],
            }
            assert space.of(changed) == candidate
            assert found.counts.of(space.choices(candidate)) == found.counts(candidate)


@pytest.mark.parametrize("name", ["cnn", "resnet8", "vit", "encoder", "bert", "cropped"])
def test_a_candidate_is_quantized_to_its_formats(name: str) -> None:
    """Rules match the groups of every sub-network, and set what the genes say."""
    found = joint(name)
    space, genes = found.genes.space, found.genes
    rng = np.random.default_rng(2)
    for _ in range(3):
        choices = space.choices(space.drawn(rng))
        module = found.network.extract(genes.architecture(choices))
        options = genes.options.__class__(
            ranges="min-max",
            equalize=False,
            bias_correction=False,
            overrides=genes.overrides(choices),
        )
        made = quantize(module, batch(found.sample_shape).numpy(), options, seed=0)
        policy = made.placement.policy.groups
        for layer in genes.layers:
            if layer in policy:
                weight = policy[layer].weight
                assert weight is not None
                assert weight.name == genes.weight_format(layer, choices)
        for members in genes.free_sets.values():
            chosen = {policy[m].activation.name for m in members if m in policy}
            assert len(chosen) <= 1
            assert chosen <= {genes.activation_format(members[0], choices)}


def test_a_policy_says_what_layers_read() -> None:
    found = joint("resnet8")
    choices = found.genes.uniform("int4", "int16")
    policy = found.genes.policy(choices)
    assert policy["features.1.first.0.conv"] == LayerFormats("int4", "int16")
    assert policy["features.0.0.conv"].reads == "int8", "the input's format is not searched"


def test_corners_are_the_ends_of_the_space() -> None:
    found = joint("resnet8")
    space = found.genes.space
    seeds = {each.origin: each.candidate for each in corners(found)}
    assert len(set(seeds.values())) == len(seeds) == 8
    assert seeds["seed: uniform int8 with int16"] == (0,) * len(space.genes)
    smallest = space.choices(seeds["seed: smallest, int2 with int8"])
    assert found.genes.architecture(smallest) == found.elastic.smallest()
