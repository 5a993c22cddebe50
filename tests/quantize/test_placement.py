"""Quantizer placement follows TFLite's rules for every network and every override."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.pipeline.values import INT16_ACTIVATION, Granularity
from edgesmith.quantize import ops
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.network import INPUT, Network
from edgesmith.quantize.options import ActivationFormat, Override, PTQOptions
from edgesmith.quantize.placement import Placement, place
from tests.quantize.nets import NETS, make


def network(name: str) -> Network:
    model, data = make(name, 3)
    return prepare(model, torch.from_numpy(data))


NETWORKS = {name: network(name) for name in NETS}


def placed(name: str, *overrides: Override, activations: ActivationFormat = "int8") -> Placement:
    net = NETWORKS[name]
    options = PTQOptions(overrides=overrides, activations=activations)
    return place(net.steps, net.constant_names, options)


def check_legal(placement: Placement) -> None:
    """The rules of `placement.py`, restated per step."""
    q, steps = placement.quantizer_of, placement.steps
    names = [step.name for step in steps]
    assert not [name for name, count in Counter([INPUT, *names]).items() if count > 1]
    known = {INPUT} | (q.keys() - set(names))
    for step in steps:
        assert set(step.inputs) <= known, f"{step.name} reads what is not there yet"
        known.add(step.name)
        parameters = {step.inputs[position]: f for position, f in step.op.parameters.items()}
        activations = {*step.inputs, step.name} - parameters.keys()
        formats = {placement.format_of(name) for name in activations}
        assert all(placement.format_of(name) == form for name, form in parameters.items())
        if not isinstance(step.op, ops.Requantize):
            assert len(formats) == 1, f"{step.name} mixes formats"
        if step.op.shares_quantizer:
            assert {q[name] for name in step.inputs} == {q[step.name]}
        if step.op.fixed_output is not None:
            bits = placement.format_of(step.name).bits
            assert placement.fixed[q[step.name]] == step.op.fixed_output[bits]
    # A fixed quantizer has one fixed source; everything else is observed somewhere.
    for quantizer in set(q.values()):
        sources = [s for s in steps if s.op.fixed_output is not None and q[s.name] == quantizer]
        assert bool(sources) == (quantizer in placement.fixed)
        assert (quantizer in placement.observed) != (quantizer in placement.fixed)
        others = [s for s in steps if q[s.name] == quantizer and not s.op.shares_quantizer]
        assert not sources or len(others) == len(sources)


@pytest.mark.parametrize("activations", ["int8", "int16"])
@pytest.mark.parametrize("name", NETS)
def test_uniform_formats_are_legal(name: str, activations: ActivationFormat) -> None:
    placement = placed(name, activations=activations)
    check_legal(placement)
    rest = placement.formats.keys() - placement.parameters
    assert len({placement.formats[name] for name in rest}) == 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_mixture_of_formats_is_legal(data: st.DataObject) -> None:
    """Requantizations appear wherever formats meet, whatever the rules choose."""
    name = data.draw(st.sampled_from(sorted(NETS)))
    groups = [INPUT, *(step.name for step in NETWORKS[name].steps)]
    chosen = data.draw(st.lists(st.sampled_from(groups), max_size=6))
    rules = [
        Override(group, activations=data.draw(st.sampled_from(["int8", "int16"])))
        for group in chosen
    ]
    placement = placed(name, *rules)
    check_legal(placement)
    for rule in rules:
        # The last rule for a tied set decides; only then must its format hold.
        tied = placement.quantizer_of[rule.name]
        later = [r for r in rules if placement.quantizer_of[r.name] == tied]
        assert placement.format_of(rule.name).name == later[-1].activations


def test_tied_tensors_of_a_concat() -> None:
    """Operands and result share one quantizer; the sigmoid among them is requantized into it."""
    placement = placed("inception")
    q = placement.quantizer_of
    concat = next(step for step in placement.steps if isinstance(step.op, ops.Concat))
    assert concat.inputs == ("a", "clamp", "concat.sigmoid", "resize")
    assert {q[name] for name in (*concat.inputs, "concat", "max_pool")} == {INPUT}
    assert q["sigmoid"] == "sigmoid"
    # b is only read by the clamp, so it is observed behind it.
    assert placement.observed[INPUT] == (INPUT, "a", "clamp", "concat.sigmoid")


def test_requantization_is_shared_by_all_readers() -> None:
    placement = placed("residual", Override("layer1.*.conv?", activations="int16"))
    converted = [step.name for step in placement.steps if isinstance(step.op, ops.Requantize)]
    assert converted == [
        "stem.0.int16",
        "layer1.0.conv2.int8",
        "layer1.0.add.int16",
        "layer1.1.conv2.int8",
    ]
    assert placement.policy.groups["layer1.0.conv1"].activation == INT16_ACTIVATION


def test_the_last_matching_rule_wins() -> None:
    rules = (
        Override(op="conv2d", weights="int4"),
        Override("layer1.0.*", weights="int8", op="conv2d"),
        Override("layer1.0.conv2", weights="int4-per-tensor"),
    )
    groups = placed("residual", *rules).policy.groups
    found = {name: group.weight for name, group in groups.items() if group.weight is not None}
    assert {name: fmt.bits for name, fmt in found.items()} == {
        "stem.0": 4,
        "layer1.0.conv1": 8,
        "layer1.0.conv2": 4,
        "layer1.1.conv1": 4,
        "layer1.1.conv2": 4,
        "fc": 8,
    }
    assert found["layer1.0.conv2"].granularity is Granularity.PER_TENSOR
    assert groups["layer1.0.add"].weight is None
