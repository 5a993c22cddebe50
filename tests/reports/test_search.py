"""A search as reports show it: front, choice, formats, and how far its figures can be trusted."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.nas.values import Constraint, Objective, Rung
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.reports.junit import junit_xml
from edgesmith.reports.label_places import label_places
from edgesmith.reports.overview import TargetEntry, render_overview
from edgesmith.reports.pareto_plot import pareto_figure
from edgesmith.reports.plots import figures
from edgesmith.reports.plotstyle import PALETTE, literal
from edgesmith.reports.render import render_html
from edgesmith.reports.search import SearchView, search_view
from edgesmith.reports.search_choices import choices_view, spread
from edgesmith.reports.search_plots import hypervolume_figure, predictors_figure
from edgesmith.reports.tables import NOTHING
from edgesmith.reports.view import build_view
from tests.reports.sample import HOSTILE, Sample, measured, sample_result
from tests.reports.search_sample import FAILED, TRIALS, sample_search, searched_result
from tests.reports.test_compression import colours
from tests.reports.test_render import Page

RESULT = searched_result()
HOSTILE_RESULT = searched_result(Sample(layers=9, classes=9, hostile=True))
SEARCH = sample_search()
assert SEARCH.chosen is not None
CHOSEN = SEARCH.trials[SEARCH.chosen]
WHOLE = SEARCH.references["uniform int8"]
VIEW = search_view(SEARCH)


def test_a_result_round_trips() -> None:
    assert from_json(DeploymentResult, to_json(RESULT)) == RESULT


def test_without_a_search_there_is_no_section() -> None:
    assert build_view(sample_result()).search is None
    assert 'id="search"' not in render_html(sample_result())
    assert 'id="search"' in render_html(RESULT)


def test_the_lead_says_what_was_evaluated_and_chosen() -> None:
    for said in (
        "40 of 10⁵ candidates evaluated with linas for cortex-m4, 1 of them failed.",
        f"{len(SEARCH.front)} are on the front: none is better in accuracy and in instructions",
        f"Chosen: candidate {CHOSEN.number} ({CHOSEN.origin}).",
        "selection split, n = 500.",
        "Limits: flash at most 30.0 kB, accuracy at least 85.00 %.",
        "2 damaged lines of the archive had to be skipped.",
    ):
        assert said in VIEW.lead
    intact = search_view(replace(SEARCH, corrupted=0, constraints=()))
    assert "archive" not in intact.lead
    assert "Limits" not in intact.lead


def test_the_choice_is_compared_with_the_trained_model() -> None:
    assert VIEW.gain is not None
    ratio = WHOLE["instructions"] / CHOSEN.metrics["instructions"]
    assert VIEW.gain.ratio.exact == repr(ratio)
    assert (VIEW.gain.said, VIEW.gain.ratio.kind) == ("fewer instructions", "simulated")
    assert VIEW.gain.accuracy is not None
    assert VIEW.gain.accuracy.kind == "measured"
    change = CHOSEN.metrics["accuracy"] + 0.25 - WHOLE["accuracy"]  # after training
    assert VIEW.gain.accuracy.text == f"{change:+.2f} points".replace("-", "−")
    cards = {card.name: card for card in VIEW.cards}
    assert list(cards) == ["Accuracy", "Instructions", "Flash", "MACs", "Time"]
    assert cards["Accuracy"].number.samples == "n = 5,000"
    assert float(cards["Accuracy"].number.exact.split()[0]) == CHOSEN.metrics["accuracy"] + 0.25
    assert cards["Flash"].compared.endswith("× smaller than uniform int8")
    size = WHOLE["flash"] / CHOSEN.metrics["flash"]
    shares = f"{ratio / 4.80:.0%} of its 4.80× in instructions and {size / 3.44:.0%} of its 3.44×"
    assert shares in VIEW.published
    assert "in time" not in VIEW.published
    assert cards["Time"].compared.endswith("× faster than uniform int8")
    assert [card.number.kind for card in cards.values()] == list(SEARCH.kinds.values())


def test_the_loss_is_that_of_the_choice_as_it_was_judged() -> None:
    """After training, where the accuracy beside it is."""
    units, kinds = {**SEARCH.units, "loss": "nats per sample"}, {**SEARCH.kinds, "loss": "measured"}
    trials = [replace(each, metrics={**each.metrics, "loss": 0.7}) for each in SEARCH.trials]
    last = replace(SEARCH.rungs[-1], loss={CHOSEN.number: 0.25})
    rungs = (*SEARCH.rungs[:-1], last)
    found = replace(SEARCH, units=units, kinds=kinds, trials=tuple(trials), rungs=rungs)
    loss = next(each for each in search_view(found).cards if each.name == "Loss")
    assert loss.number.exact.startswith("0.25")
    before = replace(found, rungs=SEARCH.rungs[:-1])
    loss = next(each for each in search_view(before).cards if each.name == "Loss")
    assert loss.number.exact.startswith("0.7")


def test_a_choice_that_costs_more_is_not_called_fewer() -> None:
    cheap, dear = SEARCH.trials[SEARCH.front[-1]].metrics, SEARCH.marks["uniform int8"]
    view = search_view(replace(SEARCH, chosen=dear, references={"uniform int8": cheap}))
    assert view.gain is not None
    assert view.gain.said == "more instructions"
    assert float(view.gain.ratio.exact) > 1
    alike = {"uniform int8": SEARCH.trials[dear].metrics}
    same = search_view(replace(SEARCH, chosen=dear, references=alike, rungs=()))
    assert {card.compared for card in same.cards} == {"same as uniform int8"}


def test_without_the_trained_model_nothing_is_compared() -> None:
    view = search_view(replace(SEARCH, references={}))
    assert view.gain is None
    assert {card.compared for card in view.cards} == {""}
    bare = replace(RESULT, search=replace(SEARCH, references={}))
    assert "against the trained model" in render_html(RESULT)
    assert "against the trained model" not in render_html(bare)


def test_every_evaluation_has_its_row() -> None:
    assert [row.number for row in VIEW.rows] == list(range(TRIALS))
    assert [row.number for row in VIEW.rows if row.on_front] == sorted(SEARCH.front)
    assert [row.number for row in VIEW.rows if row.chosen] == [SEARCH.chosen]
    failed = VIEW.rows[FAILED]
    assert failed.error == "EvaluationError: a <b>worker</b> died"
    assert {cell.text for cell in failed.cells[:-1]} == {"–"}
    assert VIEW.rows[0].cells[1].key == repr(WHOLE["instructions"])
    assert float(VIEW.rows[-1].cells[-1].key) == SEARCH.hypervolume[-1]
    assert VIEW.columns[:3] == (
        ("Accuracy, %", "measured"),
        ("Instructions", "simulated"),
        ("Flash, bytes", "measured"),
    )


def test_remeasured_members_are_compared_where_both_figures_exist() -> None:
    assert {row.member for row in VIEW.remeasured} == set(SEARCH.remeasured)
    by_metric = {row.metric: row.cells[2].text for row in VIEW.remeasured}
    assert by_metric == {"Instructions": "0", "Flash, bytes": "+2.00", "Time, ms": "0"}, (
        "no model has the arena"
    )
    kinds = {row.metric: row.kinds for row in VIEW.remeasured}
    assert kinds["Instructions"] == ("simulated",)
    assert kinds["Time, ms"] == ("estimated", "measured"), (
        "of the cost model, and of what was built"
    )
    assert VIEW.farthest.startswith("The largest difference is 2.00 %, in flash of candidate ")
    tensors = sum(SEARCH.proven.values())
    assert VIEW.proven.startswith(f"{tensors} tensors of {len(SEARCH.proven)} artifacts were")
    assert "of one artifact" in search_view(replace(SEARCH, proven={0: 5})).proven
    assert search_view(replace(SEARCH, proven={})).proven == ""
    none = search_view(replace(SEARCH, remeasured={}))
    assert (none.remeasured, none.farthest) == ((), "")
    assert SEARCH.chosen is not None
    same = {name: measured(name, value, "", 1) for name, value in CHOSEN.metrics.items()}
    exact = {SEARCH.chosen: same}
    assert search_view(replace(SEARCH, remeasured=exact)).farthest == "No figure differs."


def test_rungs_tell_what_the_choice_rests_on() -> None:
    names = [row.name for row in VIEW.rungs]
    assert names == ["search", "all of the selection split", "after training"]
    assert [row.tau.text for row in VIEW.rungs] == ["0.31", "−0.20", NOTHING]
    assert [row.candidates.text for row in VIEW.rungs][1:] == [str(len(SEARCH.front)), "1"]
    assert VIEW.rungs[2].choice.text == f"{CHOSEN.metrics['accuracy'] + 0.25:.2f}"
    assert [row.name for row in search_view(replace(SEARCH, rungs=SEARCH.rungs[:1])).rungs] == [
        "search"
    ]
    said = "\n".join(SEARCH.summary())
    assert "with 95 % confidence: 1,000 samples); rank correlation with sensitivity 0.31" in said
    low, high = SEARCH.rungs[0].interval(CHOSEN.number)
    assert VIEW.rungs[0].likely.text == f"{low:.1f} to {high:.1f}"
    assert "rank correlation with search -0.20" in said
    other = replace(SEARCH.rungs[2], accuracy={})
    without = search_view(replace(SEARCH, rungs=(other, other))).rungs[0]
    assert (without.choice.text, without.likely.text) == (NOTHING, NOTHING)


@pytest.mark.parametrize("samples", [1, 7, 240])
def test_the_interval_holds_the_shares_that_make_such_a_count_likely(samples: int) -> None:
    """Wilson's ends: shares from which the count is 1.96 of their own deviations away."""
    for right in {0, samples // 2, samples}:
        percent = 100 * right / samples
        low, high = Rung("search", samples, {3: percent}, None).interval(3)
        assert 0 <= low <= percent <= high <= 100
        for end in {low, high} - {0.0, 100.0}:
            share = end / 100
            away = abs(right / samples - share) / math.sqrt(share * (1 - share) / samples)
            assert away == pytest.approx(1.959964, rel=1e-5)


def test_a_choice_that_training_brought_within_the_limits_has_a_column() -> None:
    outside = next(t.number for t in SEARCH.trials if not t.failed and t.number not in SEARCH.front)
    view = search_view(replace(SEARCH, chosen=outside))
    assert outside in view.choices.members


def test_predictors_are_shown_as_they_were_at_last_the_proxy_after_them() -> None:
    assert VIEW.predictors == ("ridge", "trees", "proxy")
    assert [(row.metric, row.evaluations) for row in VIEW.quality] == [
        ("Accuracy", "30"),
        ("Instructions", "30"),
    ]
    assert [cell.text for cell in VIEW.quality[0].taus] == ["0.70", "0.80", "0.60"]
    figure = predictors_figure(SEARCH)
    assert figure is not None
    dashed = {trace["name"] for trace in figure["data"] if trace["line"]["dash"] == "dash"}
    assert dashed == {"proxy (no learning)"}
    assert [list(trace["x"]) for trace in figure["data"]] == [[20, 30]] * 6
    once = tuple(each for each in SEARCH.predictors if each.evaluations == 30)
    assert predictors_figure(replace(SEARCH, predictors=once)) is None
    assert predictors_figure(replace(SEARCH, predictors=())) is None


def test_what_no_predictor_can_rank_leaves_a_gap() -> None:
    bad = tuple(replace(each, tau={"ridge": float("nan")}) for each in SEARCH.predictors)
    figure = predictors_figure(replace(SEARCH, predictors=bad))
    assert figure is not None
    json.dumps(figure, allow_nan=False)


def test_choices_are_the_genes_of_members() -> None:
    view = choices_view(SEARCH)
    assert (view.members, view.left_out) == (SEARCH.front, 0)
    titles = [group.title for group in view.groups]
    assert titles == [
        "Width, output channels",
        "Residual block",
        "Format of weights",
        "Format of activations",
    ]
    column = view.members.index(CHOSEN.number)
    weights = {row.name: row.cells[column] for row in view.groups[2].rows}
    assert weights["stem"].text == CHOSEN.choices["weights:stem"]
    assert weights["stem"].share == int(weights["stem"].text[3:]) / 8
    blocks = {row.name: row.cells for row in view.groups[1].rows}
    for at, cell in enumerate(blocks["block1"]):
        inside = view.groups[0].rows[1].cells[at]
        assert (cell.text == "dropped") == (inside.tone == "gone")


@given(st.integers(1, 60), st.data())
def test_spread_members_have_both_ends_and_the_choice(size: int, data: st.DataObject) -> None:
    front = list(range(100, 100 + size))
    chosen = data.draw(st.sampled_from(front))
    found = list(spread(front, chosen))
    assert found == sorted(set(found))
    assert len(found) == min(size, 12)
    assert {front[0], front[-1], chosen} <= set(found)


def test_the_front_is_drawn_with_marks_crosses_and_limits() -> None:
    figure = pareto_figure(SEARCH)
    assert figure is not None
    by_name = {trace["name"]: trace for trace in figure["data"] if "name" in trace}
    assert len(by_name["evaluated (simulated)"]["x"]) == TRIALS - 1
    assert list(by_name["front"]["x"]) == [
        SEARCH.trials[number].metrics["instructions"] for number in SEARCH.front
    ]
    assert by_name["front"]["mode"] == "lines+markers"
    assert list(by_name["chosen"]["y"]) == [CHOSEN.metrics["accuracy"] + 0.25], "after training"
    assert "uniform int8" in by_name["trained model"]["text"]
    assert "<b>the trained model, uniform int8</b>" in by_name["trained model"]["customdata"][0]
    crosses = by_name["built and measured again"]
    assert len(crosses["x"]) == len(SEARCH.remeasured)
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert [line["y0"] for line in figure["layout"]["shapes"]] == [99.7, 85.0], "float, and a limit"
    assert figure["layout"]["annotations"][0]["text"] == "trained model, float"
    hover = by_name["evaluated (simulated)"]["customdata"][0]
    assert "<b>candidate 0</b><br>seed: uniform int8<br>accuracy 99.50 % (measured)" in hover
    assert "<b>breaks: flash at most 30.0 kB</b>" in hover


def test_finalists_are_drawn_where_training_brought_them() -> None:
    """And what was built lies there too: it was built of the trained weights."""
    figure = pareto_figure(SEARCH)
    assert figure is not None
    by_name = {trace["name"]: trace for trace in figure["data"] if "name" in trace}
    trained = by_name["after training"]
    assert list(trained["x"]) == [CHOSEN.metrics["instructions"]]
    assert list(trained["y"]) == [CHOSEN.metrics["accuracy"] + 0.25]
    before = f"{CHOSEN.metrics['accuracy']:.2f} % (measured) before"
    assert trained["customdata"][0].endswith(before)
    crosses = by_name["built and measured again"]
    built = [SEARCH.accuracy(number) for number in SEARCH.remeasured]
    assert sorted(crosses["y"]) == sorted(built)
    untrained = pareto_figure(replace(SEARCH, rungs=SEARCH.rungs[:1]))
    assert untrained is not None
    names = [trace.get("name") for trace in untrained["data"]]
    assert "after training" not in names
    assert "chosen" in names


def test_formats_that_the_target_lacks_have_a_line_or_a_name() -> None:
    """They have an accuracy and no cost; what lies below everything does not squeeze the rest."""
    least = min(each.metrics["accuracy"] for each in SEARCH.trials if not each.failed)
    lacking = {"uniform fp8_e4m3": least + 1, "uniform int2": least - 30}
    more = {name: {"accuracy": accuracy} for name, accuracy in lacking.items()}
    figure = pareto_figure(replace(SEARCH, references={**SEARCH.references, **more}))
    assert figure is not None
    lines = {line["y0"] for line in figure["layout"]["shapes"]}
    assert least + 1 in lines
    assert least - 30 not in lines
    said = [each["text"] for each in figure["layout"]["annotations"]]
    assert "trained model, uniform fp8_e4m3 (not on this target)" in said
    assert f"↓ trained model, uniform int2 {least - 30:.1f} % (not on this target)" in said
    marked = next(each for each in figure["data"] if each.get("name") == "trained model")
    assert not lacking.keys() & set(marked["text"])


def test_a_limit_of_the_cost_stands_where_its_label_does() -> None:
    limit = Constraint("instructions", "most", 1e6)
    figure = pareto_figure(replace(SEARCH, constraints=(limit,), references={}))
    assert figure is not None
    (line,), (label,) = figure["layout"]["shapes"], figure["layout"]["annotations"]
    assert line["x0"] == 1e6
    assert label["x"] == 6.0, "on a logarithmic axis"
    assert label["text"] == "instructions at most 1.00 M"
    far = Constraint("instructions", "most", 1e9)
    beyond = pareto_figure(replace(SEARCH, constraints=(far,), references={}))
    assert beyond is not None
    assert "shapes" not in beyond["layout"]


def test_a_front_of_three_objectives_is_no_line() -> None:
    more = replace(SEARCH, objectives=(*SEARCH.objectives, Objective("flash", "lower")))
    figure = pareto_figure(more)
    assert figure is not None
    assert next(t for t in figure["data"] if t["name"] == "front")["mode"] == "markers"


def test_a_narrow_range_of_costs_has_a_linear_axis() -> None:
    near = [each for each in SEARCH.trials if each.metrics.get("instructions", 0) > 1e6]
    kept = {each.number for each in near}
    found = replace(
        SEARCH,
        trials=tuple(e if e.number in kept else replace(e, metrics={}) for e in SEARCH.trials),
    )
    figure = pareto_figure(found)
    assert figure is not None
    assert "type" not in figure["layout"]["xaxis"]
    assert pareto_figure(replace(SEARCH, objectives=SEARCH.objectives[:1])) is None


def test_hypervolume_is_drawn_over_evaluations() -> None:
    figure = hypervolume_figure(SEARCH)
    assert figure is not None
    assert list(figure["data"][0]["y"]) == list(SEARCH.hypervolume)
    assert list(figure["data"][0]["x"]) == list(range(1, TRIALS + 1))
    assert hypervolume_figure(replace(SEARCH, hypervolume=())) is None


@pytest.mark.parametrize("name", ["plot-search", "plot-hypervolume", "plot-predictors"])
def test_every_colour_has_a_dark_partner(name: str) -> None:
    figure = figures(RESULT)[name]
    assert not colours(figure) - PALETTE.keys() - {"rgba(0,0,0,0)"}
    json.dumps(figure, allow_nan=False)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12))
def test_a_label_is_placed_or_left_out(points: list[tuple[float, float]]) -> None:
    assert len(label_places(points, ["uniform int8"] * len(points))) == len(points)


def test_labels_do_not_cover_each_other() -> None:
    apart = label_places([(0.2, 0.5), (0.8, 0.5)], ["one", "two"])
    assert apart == ["bottom center", "bottom center"]
    crowd = label_places([(0.5, 0.5)] * 6, ["uniform int8"] * 6)
    assert len(set(crowd[:4])) == 4
    assert crowd[4:] == ["", ""]
    beside = label_places([(0.5, 0.5)], ["uniform int8"], others=[(0.5, 0.46)])
    assert beside == ["top center"]


def test_notes_that_the_section_says_are_not_said_twice() -> None:
    assert build_view(RESULT).notes == sample_result().notes
    assert VIEW.notes == SEARCH.notes


def test_hostile_names_stay_text() -> None:
    page = Page(render_html(HOSTILE_RESULT))
    assert not any(tag in {"img", "b", "i", "iframe"} for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, found in page.tags for name in found)
    assert len(page.scripts) == 3
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert {"search", "search-table", "choice-table", "remeasured-table"} <= set(ids)
    assert len(ids) == len(set(ids))
    words = "".join(page.words)
    assert "EvaluationError: a <b>worker</b> died" in words
    assert words.count(HOSTILE[2]) >= 1
    text = json.dumps(figures(HOSTILE_RESULT)["plot-search"])
    assert "<img" not in text


def test_a_hostile_limit_is_literal_in_hover_texts() -> None:
    metric = HOSTILE[5]
    trials = tuple(
        replace(each, metrics={**each.metrics, metric: 1.0}) if each.metrics else each
        for each in SEARCH.trials
    )
    odd = replace(
        SEARCH,
        trials=trials,
        units={**SEARCH.units, metric: HOSTILE[0]},
        kinds={**SEARCH.kinds, metric: "measured"},
    )
    text = json.dumps(pareto_figure(odd), ensure_ascii=False)
    assert "<b>bold" not in text
    assert literal("<b>bold</b>") in text


def test_the_overview_draws_the_search_once() -> None:
    entries = [TargetEntry("one", RESULT), TargetEntry("two", RESULT)]
    page = Page(render_overview("mnist-cnn", entries))
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert ids.count("search") == ids.count("plot-search") == 1
    assert VIEW.lead in " ".join(" ".join(page.words).split())
    plain = render_overview("mnist-cnn", [TargetEntry("one", sample_result())])
    assert 'id="search"' not in plain


def test_junit_has_the_choice_with_its_kinds() -> None:
    root = ET.fromstring(junit_xml(RESULT))  # noqa: S314 - our own output
    found = {each.get("name"): each.get("value") for each in root.iter("property")}
    assert found["search accuracy"] == f"{CHOSEN.metrics['accuracy']!r} % (measured)"
    assert found["search time"] == f"{CHOSEN.metrics['time']!r} ms (estimated)"


def test_view_is_complete_without_predictors_and_remeasurement() -> None:
    least: SearchView = search_view(
        replace(SEARCH, predictors=(), remeasured={}, frozen={}, notes=(), hypervolume=())
    )
    assert (least.quality, least.frozen, least.volume) == ((), (), "")
    text = render_html(replace(RESULT, search=replace(SEARCH, predictors=(), remeasured={})))
    assert "remeasured-table" not in text
    assert "How well predictors rank" not in text
