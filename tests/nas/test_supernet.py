"""Shared weights: the largest is the original; sliced, extracted and exported agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from edgesmith.nas.elastic import Elastic
from edgesmith.nas.supernet import SuperNetwork
from edgesmith.pipeline.torch_model import export_float
from edgesmith.quantize.groups import prepare
from tests.nas.nets import NETS, make
from tests.nas.test_elastic import known
from tests.prune.nets import batch


def drawn(found: Elastic, count: int = 4) -> list[dict[str, int]]:
    rng = np.random.default_rng(1)
    return [found.smallest(), *(found.drawn(rng) for _ in range(count))]


@pytest.mark.parametrize("name", NETS)
def test_the_largest_sub_network_is_the_trained_model(name: str) -> None:
    model, found = known(name)
    x = batch(NETS[name][1])
    network = SuperNetwork(model, found)
    with torch.no_grad():
        assert torch.equal(network(x), model(x))
        assert torch.equal(network(x, found.whole()), model(x))
    extracted = network.extract(found.whole())
    assert type(extracted) is type(model)
    assert state(extracted).keys() == state(model).keys()
    assert all(torch.equal(value, state(model)[key]) for key, value in state(extracted).items())


def state(module: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = module.state_dict()
    return found


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_what_runs_sliced_is_what_is_extracted_and_what_is_exported(name: str) -> None:
    model, found = known(name)
    x = batch(NETS[name][1])
    network = SuperNetwork(model, found)
    for architecture in drawn(found):
        extracted = network.extract(architecture)
        assert torch.equal(network(x, architecture), extracted(x))
        if name != "kernels":  # whose mirrored padding has no integer form
            traced = prepare(extracted, x)  # what is quantized and exported
            assert torch.allclose(traced(x), extracted(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_the_exported_file_computes_what_runs_sliced(name: str, tmp_path: Path) -> None:
    """By ONNX Runtime."""
    model, found = known(name)
    shape = NETS[name][1]
    x, network, path = batch(shape)[:1], SuperNetwork(model, found), tmp_path / "small.onnx"
    for architecture in drawn(found, 1):
        export_float(network.extract(architecture), shape, path)
        session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: x.numpy()}
        (computed,) = session.run(None, feed)
        np.testing.assert_allclose(computed, network(x, architecture), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet8", "encoder", "kernels", "tied"])
def test_gradients_reach_the_slices_and_nothing_else(name: str) -> None:
    """The sum over all weights of gradient times weight is the same, sliced or extracted."""
    model, found = known(name)
    x = batch(NETS[name][1])
    network = SuperNetwork(model, found).requires_grad_(True)
    for architecture in drawn(found, 2):
        network.zero_grad()
        network(x, architecture).square().sum().backward()
        extracted = network.extract(architecture).requires_grad_(True)
        extracted(x).square().sum().backward()
        for sums in ((1, 1), (2, 1), (2, 2)):
            mine, theirs = (moments(each, *sums) for each in (network.model, extracted))
            if name != "tied" or sums[0] == 1:  # squares of sums are no sums of squares
                assert mine == pytest.approx(theirs, rel=1e-4)


def moments(module: nn.Module, gradient: int, weight: int) -> float:
    return sum(
        float((value.grad.double() ** gradient * value.detach().double() ** weight).sum())
        for value in module.parameters()
        if value.grad is not None
    )


def test_all_sub_networks_share_what_is_trained() -> None:
    model, found = known("resnet8")
    network = SuperNetwork(model, found).requires_grad_(True)
    x = batch(NETS["resnet8"][1])
    smallest = found.smallest()
    before = network(x).detach()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    network(x, smallest).square().sum().backward()
    optimizer.step()
    assert not torch.equal(network(x), before)
    with torch.no_grad():
        assert torch.equal(network.extract(smallest)(x), network(x, smallest))
    assert torch.equal(before, model(x).detach())  # the model that was given is not


def test_batch_statistics_belong_to_a_sub_network() -> None:
    model, found = known("resnet8")
    network = SuperNetwork(model, found)
    x = batch(NETS["resnet8"][1], samples=16)
    smallest = found.smallest()
    before = {name: value.clone() for name, value in state(network.model).items()}
    with torch.no_grad():
        first = network(x, smallest)
        network.train()
        network(x, smallest)
        network.eval()
        assert not torch.equal(network(x, smallest), first)
        assert torch.equal(network.extract(smallest)(x), network(x, smallest))
    assert all(torch.equal(value, before[name]) for name, value in state(network.model).items())


def test_sub_networks_that_are_forgotten_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgesmith.nas.supernet._REMEMBERED", 2)
    model, shape = make("dscnn")
    _, found = known("dscnn")
    network = SuperNetwork(model, found)
    x = batch(shape)
    with torch.no_grad():
        outputs = [network(x, each) for each in drawn(found)]
        again = [network(x, each) for each in drawn(found)]
    assert all(torch.equal(one, other) for one, other in zip(outputs, again, strict=True))
    assert len(network._known) == 2
