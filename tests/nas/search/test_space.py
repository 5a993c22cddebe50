"""What holds for all candidates of all spaces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.nas.predictors._features import at_least
from edgesmith.nas.samplers._subspace import Subspace
from edgesmith.nas.space import Candidate, Gene, Moot, Space, neighbours
from tests.nas.search.problems import Network, everything

FEW = settings(max_examples=60, deadline=None)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Up to seven genes; some silence others, those that these silence among them."""
    sizes = draw(st.lists(st.integers(2, 4), min_size=1, max_size=7))
    genes = tuple(Gene(f"g{at}", tuple(range(size))) for at, size in enumerate(sizes))
    moot, silenced = [], dict[str, tuple[str, ...]]()
    for at in reversed(range(len(genes) - 1)):
        inside = draw(st.lists(st.sampled_from(genes[at + 1 :]), max_size=3, unique=True))
        names = {name for gene in inside for name in (gene.name, *silenced.get(gene.name, ()))}
        if names:
            silenced[genes[at].name] = tuple(sorted(names))
            choice = draw(st.integers(1, sizes[at] - 1))
            moot.append(Moot(genes[at].name, choice, silenced[genes[at].name]))
    return Space(genes, tuple(moot))


@st.composite
def rows(draw: st.DrawFn) -> tuple[Space, tuple[int, ...]]:
    space = draw(spaces())
    return space, tuple(draw(st.integers(0, size - 1)) for size in space.sizes)


@FEW
@given(rows())
def test_canonical_form_is_final_and_the_same_for_equal_models(
    case: tuple[Space, tuple[int, ...]],
) -> None:
    space, row = case
    candidate = space.canonical(row)
    assert space.canonical(candidate) == candidate
    silent = [at for at, on in enumerate(space.active(row)) if not on]
    for at in silent:
        other = (*row[:at], (row[at] + 1) % space.sizes[at], *row[at + 1 :])
        assert space.canonical(other) == candidate


@FEW
@given(rows())
def test_choices_and_keys_tell_candidates_apart(case: tuple[Space, tuple[int, ...]]) -> None:
    space, row = case
    candidate = space.canonical(row)
    assert space.of(space.choices(candidate)) == candidate
    backwards = Space(space.genes[::-1], space.moot)
    assert backwards.key(candidate[::-1]) == space.key(candidate)
    for other in neighbours(space, candidate):
        assert space.key(other) != space.key(candidate)


@FEW
@given(rows())
def test_one_hot_has_a_one_for_each_active_gene(case: tuple[Space, tuple[int, ...]]) -> None:
    space, row = case
    candidate = space.canonical(row)
    (hot,) = space.one_hot([candidate])
    for gene, index, on in zip(
        np.split(hot, np.cumsum(space.sizes)[:-1]), candidate, space.active(candidate), strict=True
    ):
        assert gene.sum() == on
        assert gene[index] == on
    (code,) = at_least(space, [candidate])
    assert code.sum() == sum(i + 1 for i, on in zip(candidate, space.active(candidate)) if on)  # noqa: B905


@FEW
@given(spaces())
def test_every_candidate_is_reached_through_neighbours(space: Space) -> None:
    start = space.canonical([0] * len(space.genes))
    seen, waiting = {start}, [start]
    while waiting:
        for other in neighbours(space, waiting.pop()):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    assert seen == set(everything(space))


def test_a_subspace_has_the_candidates_of_its_base() -> None:
    space = Network(blocks=2).space
    base = space.of({"depth:1": 0, "width:0": 32})
    part = Subspace(space, base, ("weights:0", "weights:1", "width:0"))
    assert [gene.name for gene in part.space.genes] == ["width:0", "weights:0"]
    lifted = part.lifted((3, 1))
    assert space.choices(lifted) == {
        **space.choices(base), "width:0": 16, "weights:0": "int4",
    }  # fmt: skip
    assert part.lowered(lifted) == (3, 1)
    assert part.lowered(space.canonical([0] * len(space.genes))) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [((0, 0), "a candidate has 1 genes, got 2"), ((3,), "g has 2 choices, got index 3")],
)
def test_what_is_no_candidate_is_refused(row: Candidate, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Space((Gene("g", (1, 0)),)).canonical(row)
