"""What a search begins with: the ends of its space, and the best formats of the trained model."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterator

import pytest

from edgesmith.nas.evaluation import Evidence
from edgesmith.nas.genes import ACTIVATIONS, WEIGHTS, offered
from edgesmith.nas.joint import Joint, joint_of
from edgesmith.nas.seeds import corners, programs
from edgesmith.nas.space import Candidate
from edgesmith.nas.values import Proposal
from edgesmith.pipeline.target_facts import get_target
from edgesmith.prune.costs import QUICK
from edgesmith.quantize.allocation.costs import WEIGHT_BYTES
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.sensitivity.values import Sensitivities
from tests.nas.joint.test_accepted import Hard
from tests.nas.joint.worlds import SHAPE, classifier, joint
from tests.prune.nets import batch, blobs, settled

NAMES = ("classifier", "split", "concat")
SELECTION = blobs(96, 2)


def world(name: str) -> Joint:
    return classifier()[1] if name == "classifier" else joint(name)


def evidence(name: str, found: Joint) -> Evidence:
    """Of which programs look at the calibration samples only."""
    noise = batch(found.sample_shape, 64).numpy()
    samples = blobs(64, 1).inputs if name == "classifier" else noise
    return Evidence(samples, samples, SELECTION)


def programmed(name: str) -> tuple[Joint, tuple[Proposal, ...], Sensitivities]:
    found = world(name)
    seeds, sensitivities = programs(found, evidence(name, found), PTQOptions(), seed=7)
    assert sensitivities is not None
    return found, seeds, sensitivities


def whole_in_all_formats(found: Joint) -> Iterator[Candidate]:
    """The trained model in every combination of formats."""
    genes = [each for each in found.genes.space.genes if each.name in found.genes.formats]
    for row in itertools.product(*(gene.choices for gene in genes)):
        chosen = dict(zip((gene.name for gene in genes), row, strict=True))
        yield found.genes.space.of({**found.elastic.whole(), **chosen})


@pytest.mark.parametrize("name", [*NAMES, "resnet8"])
def test_corners_are_distinct_and_canonical_and_the_trained_model_is_first(name: str) -> None:
    found = world(name)
    space, seeds = found.genes.space, corners(found)
    candidates = [each.candidate for each in seeds]
    assert len({*candidates}) == len({each.origin for each in seeds}) == len(seeds)
    assert candidates == [space.canonical(each) for each in candidates]
    assert candidates[0] == (0,) * len(space.genes)


@pytest.mark.parametrize("name", NAMES)
def test_corners_are_each_uniform_format_and_both_ends_of_the_smallest(name: str) -> None:
    found = world(name)
    genes, several = found.genes, name != "classifier"
    weights = ("int8", "int4", "int2") if several else ("int8", "int4")
    activations = ("int16", "int8") if several else ("int8",)
    pairs = [*itertools.product(weights, activations)]
    expected = [("uniform", *pair) for pair in pairs]
    expected += [("smallest", *pairs[0]), ("smallest", *pairs[-1])]
    for seed, (what, weight, activation) in zip(corners(found), expected, strict=True):
        between = " " if what == "uniform" else ", "
        beside = f" with {activation}" if several else ""
        assert seed.origin == f"seed: {what}{between}{weight}{beside}"
        choices = genes.space.choices(seed.candidate)
        shape = found.elastic.whole() if what == "uniform" else found.elastic.smallest()
        assert genes.architecture(choices) == shape
        formats = {
            kind: {choice for gene, choice in choices.items() if gene.startswith(kind)}
            for kind in (WEIGHTS, ACTIVATIONS)
        }
        assert formats == {WEIGHTS: {weight}, ACTIVATIONS: {activation} if several else set()}


def require_optimal(
    found: Joint, seeds: tuple[Proposal, ...], sensitivities: Sensitivities
) -> None:
    """Of all formats within the bytes of a program, none has a lower sum of sensitivities."""
    genes, space = found.genes, found.genes.space
    rises = {(WEIGHTS + e.group, e.format): e.loss for e in sensitivities.weights}
    rises |= {(ACTIVATIONS + e.group, e.format): e.loss for e in sensitivities.activations}

    def rise(candidate: Candidate) -> float:
        chosen = space.choices(candidate).items()
        return sum(rises[gene, str(name)] for gene, name in chosen if gene in genes.formats)

    table = [(found.counts(each)[WEIGHT_BYTES], rise(each)) for each in whole_in_all_formats(found)]
    largest = max(rise for _, rise in table)
    assert seeds
    for seed in seeds:
        assert genes.architecture(space.choices(seed.candidate)) == found.elastic.whole()
        assert seed.candidate == space.canonical(seed.candidate)
        budget = found.counts(seed.candidate)[WEIGHT_BYTES]
        best = min(rise for size, rise in table if size <= budget)
        assert rise(seed.candidate) == pytest.approx(best, rel=0, abs=1e-9 * largest)


@pytest.mark.parametrize("name", NAMES)
def test_no_formats_within_the_bytes_of_a_program_have_a_lower_sum_of_sensitivities(
    name: str,
) -> None:
    require_optimal(*programmed(name))


@pytest.mark.parametrize("name", NAMES)
def test_programs_grow_between_the_ends_of_the_formats(name: str) -> None:
    found, seeds, _ = programmed(name)
    assert [each.origin for each in seeds] == [f"seed: integer program {n}" for n in (1, 2, 3)]
    sizes = [found.counts(each.candidate)[WEIGHT_BYTES] for each in seeds]
    ends = [found.counts(each)[WEIGHT_BYTES] for each in whole_in_all_formats(found)]
    assert min(ends) < sizes[0] < sizes[1] < sizes[2] < max(ends)


def test_programs_come_with_the_sensitivity_of_every_layer_and_tensor_to_every_format() -> None:
    found, seeds, sensitivities = programmed("split")
    assert (sensitivities.method, sensitivities.samples) == ("divergence", 64)
    known: dict[str, set[str]] = defaultdict(set)
    for kind, losses in (
        (WEIGHTS, sensitivities.weights),
        (ACTIVATIONS, sensitivities.activations),
    ):
        for each in losses:
            known[kind + each.group].add(each.format)
    for gene, formats in found.genes.formats.items():
        assert known[gene] == {*formats}
    assert programmed("split")[1:] == (seeds, sensitivities), "the same every time"


def test_there_are_no_programs_without_a_choice_of_weights() -> None:
    formats = offered(("int8",), ("int8", "int16"), [get_target("c-host").describe()])
    found = joint_of(classifier()[0], SHAPE, formats, QUICK, divisor=4)
    seeds = programs(found, evidence("classifier", found), PTQOptions(), seed=7)
    assert seeds == ((), None)


def test_programs_choose_of_what_every_layer_can_have() -> None:
    host = get_target("c-host").describe()
    forms = tuple(each for each in host.ops["DepthwiseConv2D"] if each.weight == "int8")
    narrow = dataclasses.replace(host, ops={**host.ops, "DepthwiseConv2D": forms})
    formats = offered(("int8", "int4"), ("int8",), [host])
    found = joint_of(settled(Hard), SHAPE, formats, QUICK, targets=(narrow,))
    assert found.genes.formats[WEIGHTS + "depthwise"] == ("int8",)
    seeds, sensitivities = programs(found, evidence("noise", found), PTQOptions(), seed=7)
    assert sensitivities is not None
    require_optimal(found, seeds, sensitivities)
    assert len({each.candidate for each in (*seeds, *corners(found))}) == len(seeds) + 4


def test_the_smallest_is_named_once_where_there_is_one_format() -> None:
    formats = offered(("int8",), ("int8",), [get_target("c-host").describe()])
    found = joint_of(classifier()[0], SHAPE, formats, QUICK, divisor=4)
    assert [each.origin for each in corners(found)] == [
        "seed: uniform int8",
        "seed: smallest, int8",
    ]
