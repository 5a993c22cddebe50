"""Solvers against trying everything."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.pipeline.errors import AllocationError, UnreachableBudgetError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.quantize.allocation import milp
from edgesmith.quantize.allocation.front import Front, front
from edgesmith.quantize.allocation.greedy import greedy
from edgesmith.quantize.allocation.local import improve
from edgesmith.quantize.allocation.milp import cheapest, solve
from edgesmith.quantize.allocation.problem import Choice, Option, Pair, Problem, Solution, Tie, Unit
from tests.quantize.allocation.problems import RESOURCES, everything, problems, random_problem

FEW = settings(max_examples=60, deadline=None)


def limits_of(problem: Problem, share: float) -> dict[str, float]:
    """Limits between the least and the most that there is."""
    found = {}
    for name in RESOURCES:
        totals = [problem.cost(name, picked) for picked in everything(problem, {})]
        found[name] = min(totals) + share * (max(totals) - min(totals))
    return found


@FEW
@given(problems(), st.floats(0, 1), st.sets(st.sampled_from(sorted(RESOURCES))))
def test_the_program_finds_the_least_loss_of_all_choices(
    problem: Problem, share: float, limited: set[str]
) -> None:
    limits = {name: limit for name, limit in limits_of(problem, share).items() if name in limited}
    losses = [problem.loss(picked) for picked in everything(problem, limits)]
    if not losses:
        with pytest.raises(UnreachableBudgetError):
            solve(problem, limits)
        return
    found = solve(problem, limits)
    picked = problem.picked(found.choices)
    assert found.optimal
    assert problem.respects_ties(picked)
    assert problem.within(picked, limits)
    assert found.loss == pytest.approx(min(losses), rel=1e-9, abs=1e-9)
    assert found == Solution.of(problem, picked, optimal=True, method="milp")
    assert from_json(Solution, to_json(found)) == found


@FEW
@given(problems(), st.sets(st.sampled_from(["u0", "u1", "u2", "u3"])))
def test_with_fewer_options_the_others_cost_what_they_cost(
    problem: Problem, narrow: set[str]
) -> None:
    few = problem.only(lambda unit, choice: unit not in narrow or choice.weight == "int8")
    few.check()
    made = {tuple(few.choices(picked).items()) for picked in everything(few, {})}
    for picked in everything(problem, {}):
        choices = problem.choices(picked)
        kept = all(choice.weight == "int8" for u, choice in choices.items() if u in narrow)
        assert kept == (tuple(choices.items()) in made)
        if kept:
            again = few.picked(choices)
            assert few.loss(again) == problem.loss(picked)
            assert few.costs(again) == problem.costs(picked)


@FEW
@given(problems(), st.floats(0, 1))
def test_greedy_and_local_search_keep_to_the_limits_and_are_never_better(
    problem: Problem, share: float
) -> None:
    limits = limits_of(problem, share)
    try:
        best = solve(problem, limits).loss
        found = greedy(problem, limits)
    except UnreachableBudgetError:
        return
    picked = problem.picked(found.choices)
    assert problem.within(picked, limits)
    assert problem.respects_ties(picked)
    better = improve(problem, picked, limits)
    assert problem.within(better, limits)
    assert problem.respects_ties(better)
    assert best - 1e-9 <= problem.loss(better) <= found.loss + 1e-9


@FEW
@given(problems(), st.floats(0, 1))
def test_an_impossible_budget_names_the_nearest_reachable_one(
    problem: Problem, share: float
) -> None:
    every = list(everything(problem, {}))
    least = {name: min(problem.cost(name, picked) for picked in every) for name in RESOURCES}
    limits = {"size": least["size"] * share - 0.01}
    with pytest.raises(UnreachableBudgetError, match="nearest reachable is size") as raised:
        solve(problem, limits)
    nearest = problem.cost("size", cheapest(problem, limits))
    assert nearest == pytest.approx(least["size"])
    assert solve(problem, {"size": nearest}).costs["size"] <= nearest
    assert f"{nearest:,.6g}" in str(raised.value) or f"{nearest:,.0f}" in str(raised.value)


@FEW
@given(problems(integral=True))
def test_the_front_is_every_point_that_nothing_dominates(problem: Problem) -> None:
    every = {(problem.cost("size", p), problem.loss(p)) for p in everything(problem, {})}
    wanted = sorted(
        (cost, loss)
        for cost, loss in every
        if not any(c <= cost and v <= loss and (c, v) != (cost, loss) for c, v in every)
    )
    found = front(problem, "size")
    assert [(each.costs["size"], each.loss) for each in found.solutions] == wanted
    assert found.complete
    assert from_json(Front, to_json(found)) == found
    spread = front(problem, "size", points=4)
    assert {(s.costs["size"], s.loss) for s in spread.solutions} <= every
    costs = [each.costs["size"] for each in spread.solutions]
    assert costs == sorted(set(costs))


def test_a_front_keeps_to_other_limits() -> None:
    problem = random_problem(3, 4)
    limit = limits_of(problem, 0.4)["time"]
    found = front(problem, "size", {"time": limit})
    assert len(found.solutions) > 1
    assert all(each.costs["time"] <= limit for each in found.solutions)
    best = min(problem.loss(picked) for picked in everything(problem, {"time": limit}))
    assert found.solutions[-1].loss == pytest.approx(best)
    assert found.within(found.solutions[1].costs["size"]) == found.solutions[1]
    with pytest.raises(UnreachableBudgetError, match="nearest reachable"):
        found.within(found.solutions[0].costs["size"] - 0.01)


def test_without_room_for_products_the_result_says_that_it_is_not_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = random_problem(5, 4)
    limits = limits_of(problem, 0.5)
    best = solve(problem, limits)
    monkeypatch.setattr(milp, "MOST_PRODUCTS", 0)
    found = solve(problem, limits)
    assert not found.optimal
    assert found.method == "milp + local search"
    assert problem.within(problem.picked(found.choices), limits)
    assert best.loss <= found.loss <= greedy(problem, limits).loss


@pytest.mark.parametrize("seed", range(4))
def test_out_of_time_the_result_is_at_least_as_good_as_greedy(seed: int) -> None:
    problem = random_problem(seed, 30)
    costs = problem.costs(tuple(0 for _ in problem.units))
    limits = {name: 0.9 * cost for name, cost in costs.items()}
    found = solve(problem, limits, seconds=0.01)
    assert problem.within(problem.picked(found.choices), limits)
    assert found.loss <= greedy(problem, limits).loss


def two(loss: float = 1.0) -> Unit:
    wide = Option(Choice("int8"), 0.0, {"size": 8})
    return Unit("one", (wide, Option(Choice("int4"), loss, {"size": 4})))


def test_cross_terms_change_the_choice() -> None:
    """Each alone prefers to narrow `a` and `b`; together they are bad."""

    def unit(name: str, loss: float) -> Unit:
        wide = Option(Choice("int8"), 0.0, {"size": 8})
        return Unit(name, (wide, Option(Choice("int4"), loss, {"size": 4})))

    units = (unit("a", 1.0), unit("b", 1.0), unit("c", 1.5))
    pair = Pair("a", "b", ((0.0, 0.0), (0.0, 5.0)))
    plain = Problem(units, resources={"size": "bytes"})
    crossed = Problem(units, (pair,), resources={"size": "bytes"})
    assert solve(plain, {"size": 16}).choices["c"] == Choice("int8")
    assert solve(crossed, {"size": 16}).choices["c"] == Choice("int4")


def test_a_budget_that_is_missed_by_a_millionth_is_missed() -> None:
    problem = Problem((two(),), resources={"size": "bytes"}, base={"size": 99_999_999_992.0})
    assert solve(problem, {"size": 1e11}).choices["one"] == Choice("int8")
    assert solve(problem, {"size": 1e11 - 1e-4}).choices["one"] == Choice("int4")


def test_many_layers_are_solved_in_seconds() -> None:
    units = tuple(
        Unit(
            f"u{at}",
            tuple(
                Option(Choice(f"int{bits}"), (at * 37 % 11 + 1) * 4.0**-bits, {"size": bits * at})
                for bits in (2, 3, 4, 6, 8)
            ),
        )
        for at in range(1, 101)
    )
    problem = Problem(units, resources={"size": "bits"})
    found = solve(problem, {"size": 5 * sum(range(101))})
    assert found.optimal
    assert found.loss <= greedy(problem, {"size": 5 * sum(range(101))}).loss


@pytest.mark.parametrize(
    ("problem", "limits", "message"),
    [
        (Problem(()), {}, "nothing to choose"),
        (Problem((Unit("a", ()),)), {}, "nothing to choose"),
        (Problem((two(), two())), {}, "two units have one name"),
        (Problem((two(float("nan")),)), {}, "no finite number"),
        (Problem((two(),)), {"time": 1.0}, "no resource 'time' to limit"),
        (Problem((two(),), (Pair("one", "one"),)), {}, "does not name two groups"),
        (Problem((two(),), ties=(Tie(("one", "x")),)), {}, "'x', which is no group"),
        (
            Problem((two(), Unit("b", two().options)), (Pair("one", "b", ((0.0,),)),)),
            {},
            re.escape("is not (2, 2)"),
        ),
    ],
)
def test_malformed_problems_are_refused(
    problem: Problem, limits: dict[str, float], message: str
) -> None:
    with pytest.raises(AllocationError, match=message):
        solve(problem, limits)


def test_a_choice_that_is_not_offered_is_refused() -> None:
    with pytest.raises(AllocationError, match="no option int2"):
        Problem((two(),)).picked({"one": Choice("int2")})


def test_ties_without_a_common_format_are_refused() -> None:
    units = (
        Unit("a", (Option(Choice("int8", "int8"), 0.0),)),
        Unit("b", (Option(Choice("int8", "int16"), 0.0),)),
    )
    with pytest.raises(AllocationError, match="no activation format in common"):
        solve(Problem(units, ties=(Tie(("a", "b")),)))
