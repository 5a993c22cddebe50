"""Bits and zeros per layer, pruning, training and the front of formats, as reports show them."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.results import DeploymentResult, ZerosGain
from edgesmith.pipeline.values import Kind
from edgesmith.reports.allocation import allocation_view
from edgesmith.reports.compression_plots import formats_figure, pruning_figure
from edgesmith.reports.formats import formats_view, totals, weighted
from edgesmith.reports.front_plots import choices_figure, front_figure
from edgesmith.reports.junit import junit_skipped, junit_xml
from edgesmith.reports.overview import render_overview
from edgesmith.reports.plots import figures
from edgesmith.reports.plotstyle import PALETTE, Figure
from edgesmith.reports.pruning import pruning_view
from edgesmith.reports.render import render_html
from edgesmith.reports.skipped import skipped_files
from edgesmith.reports.training import training_view
from edgesmith.reports.view import build_view
from tests.reports.compression_sample import compressed_result, entries, sample_training
from tests.reports.sample import HOSTILE, Sample, device_result, sample_result
from tests.reports.test_render import Page

RESULT = compressed_result()
HOSTILE_RESULT = compressed_result(Sample(layers=9, classes=9, hostile=True))
assert RESULT.allocation is not None
assert RESULT.pruning is not None
FRONT, PRUNING = RESULT.allocation, RESULT.pruning


def test_a_result_round_trips() -> None:
    assert from_json(DeploymentResult, to_json(RESULT)) == RESULT


def test_an_older_result_without_formats_has_no_such_section() -> None:
    view = build_view(sample_result())
    assert (view.formats, view.pruning, view.training, view.allocation) == (None,) * 4
    text = render_html(sample_result())
    for name in ("formats", "pruning", "training", "allocation"):
        assert f'id="{name}"' not in text


def test_every_layer_has_its_formats_and_zeros() -> None:
    view = formats_view(RESULT)
    assert view is not None
    assert len(view.rows) == len(RESULT.layers)
    line, layer = view.rows[3], RESULT.layers[3]
    assert layer.formats is None or layer.formats.weight is None
    assert line.cells[0].text == "–"
    (first, formats), *_ = weighted(RESULT.layers)
    cells = view.rows[first.index].cells
    assert [cell.text for cell in cells[:3]] == [formats.weight, "int8", "int8"]
    assert "one scale per output channel" in cells[0].title
    assert cells[4].text == f"{100 * formats.zeros / formats.weights:.1f}"
    assert cells[5].key == str(formats.code_bytes)
    assert cells[6].text == "16"
    pruned = next(row for row in view.rows if "→" in row.cells[6].text)
    assert pruned.cells[6].text.startswith("16 → 1")


def test_totals_are_sums_over_layers_with_weights() -> None:
    found = totals(RESULT.layers)
    assert found is not None
    formats = [each for _, each in weighted(RESULT.layers)]
    assert found.weights == sum(each.weights for each in formats)
    assert found.bits == pytest.approx(8 * sum(e.code_bytes for e in formats) / found.weights)
    assert sum(found.by_format.values()) == found.layers == len(formats)
    assert totals(()) is None


def test_what_zeros_save_on_a_device_is_shown_with_its_kind() -> None:
    view = formats_view(RESULT)
    assert view is not None
    assert view.gain == ()
    device = device_result().device
    assert device is not None
    flash, more = device.flash, device.arena
    instructions, share = device.instructions, replace(device.instructions, value=4.25, unit="%")
    saved, none = replace(flash, value=1846.0), replace(more, value=0.0)
    gain = ZerosGain(3, saved, instructions, share, none)
    result = replace(RESULT, device=replace(device, zeros=gain))
    view = formats_view(result)
    assert view is not None
    assert [(card.name, card.number.kind) for card in view.gain] == [
        ("Flash saved by zeros", flash.kind.value),
        ("More instructions", device.instructions.kind.value),
        ("More arena", more.kind.value),
    ]
    assert view.gain[0].number.text == "1.85 kB"
    assert view.gain[1].compared == "per inference, 4.25 % more"
    assert "before zeros are left out" in render_html(result)


def test_pruning_says_what_was_asked_done_and_undone() -> None:
    view = pruning_view(PRUNING)
    assert view.asked == "at most 6.00 M instructions, 50.0 % of the unpruned model"
    assert view.change is not None
    assert (view.change.text, view.change.kind) == ("55.0 %", "simulated")
    assert [row.accepted for row in view.rounds] == [True, False, True]
    assert (view.cards[0].name, view.cards[0].number.text) == ("Instructions before", "12.0 M")
    assert view.frozen == (("fc", "makes the model's output"),)
    assert view.notes == ("zero weights: no gain on fc",)
    other = replace(PRUNING, before=replace(PRUNING.before, kind=Kind.MEASURED))
    assert pruning_view(other).change is None, "kinds are never combined"
    zeros = replace(PRUNING, goal=PRUNING.before.value, rounds=())
    assert "no channels" in pruning_view(zeros).asked


def test_notes_that_a_section_says_are_not_said_twice() -> None:
    view = build_view(RESULT)
    assert view.notes == sample_result().notes
    assert not any("pruned for" in note for note in view.notes)


@pytest.mark.parametrize(
    ("diverged", "improved", "outcome"),
    [(False, True, "kept"), (True, True, "diverged"), (False, False, "no epoch was better")],
)
def test_training_says_how_it_ended(diverged: bool, improved: bool, outcome: str) -> None:
    view = training_view(replace(sample_training(), diverged=diverged, improved=improved))
    assert view.outcome.startswith(outcome)
    assert view.good is (outcome == "kept")
    assert view.cards[2].compared == "+2.25 points"


def test_allocation_marks_the_choice_and_keeps_kinds() -> None:
    view = allocation_view(FRONT)
    chosen = [row for row in view.rows if row.chosen]
    assert [row.name for row in chosen] == ["candidate 3"]
    assert chosen[0].cells[0].text == "96.50"
    assert view.rows[0].cells[0].text == "–", "candidate 0 was not measured"
    assert {card.name: card.number.kind for card in view.cards} == {
        "Accuracy": "measured",
        "Weight bytes": "estimated",
        "Bit operations": "estimated",
        "Time": "estimated",
        "Rise of the loss": "estimated",
    }
    assert "at most 65.0 kB of weights" in view.lead
    assert view.cards[1].compared == "72.7 % of uniform int8"
    none = replace(FRONT, front=tuple(replace(p, accuracy=None) for p in FRONT.front), uniform=())
    assert not allocation_view(none).measured


def test_the_front_is_drawn_over_size_and_the_targets_cost() -> None:
    figure = front_figure(FRONT)
    assert figure is not None
    titles = [figure["layout"][f"xaxis{at}"]["title"]["text"] for at in ("3", "4")]
    assert titles == ["weight bytes (estimated)", "time, ms (estimated)"]
    candidates = [trace for trace in figure["data"] if trace["name"] == "candidates"]
    assert [len(trace["x"]) for trace in candidates] == [3, 3, 6, 6]
    assert list(candidates[0]["y"]) == [95.5, 96.5, 97.5]
    assert list(candidates[3]["x"]) == [point.costs["time"] for point in FRONT.front]
    assert [trace["mode"] for trace in candidates[:2]] == ["lines+markers", "markers"]
    rings = [trace for trace in figure["data"] if trace["name"] == "chosen"]
    assert [(trace["x"][0], trace["y"][0]) for trace in rings[:2]] == [(64_000, 96.5), (10.5, 96.5)]
    assert figure["layout"]["yaxis3"]["type"] == "log"
    plain = replace(FRONT, front=tuple(replace(p, accuracy=None) for p in FRONT.front), uniform=())
    drawn = front_figure(plain)
    assert drawn is not None
    assert "yaxis3" not in drawn["layout"]
    assert front_figure(replace(FRONT, front=(), uniform=())) is None


def test_choices_are_bits_of_layers_over_candidates() -> None:
    figure = choices_figure(FRONT)
    assert figure is not None
    (heat,) = figure["data"]
    names = list(FRONT.front[0].weight_bits)
    assert [list(row) for row in heat["z"]] == [
        [point.weight_bits[name] for point in FRONT.front] for name in names
    ]
    (frame,) = figure["layout"]["shapes"]
    assert (frame["x0"], frame["x1"]) == (2.5, 3.5)


def test_bits_zeros_bytes_and_channels_are_drawn() -> None:
    figure = formats_figure(RESULT.layers)
    assert figure is not None
    found = weighted(RESULT.layers)
    bars = [trace for trace in figure["data"] if trace["type"] == "bar"]
    drawn = dict.fromkeys(("y", "y2", "y3"), 0.0)
    for bar in bars:
        if bar["yaxis"] in drawn:
            drawn[bar["yaxis"]] += sum(bar["y"])
    assert drawn["y"] == sum(int(str(f.weight).removeprefix("int")) for _, f in found)
    assert drawn["y2"] == pytest.approx(sum(100 * f.zeros / f.weights for _, f in found))
    assert drawn["y3"] == sum(f.code_bytes for _, f in found)
    before, after = (bar for bar in bars if bar["yaxis"] == "y4")
    assert set(before["y"]) == {16}
    assert min(after["y"]) == 10
    assert formats_figure(sample_result().layers) is None


def test_rounds_are_drawn_with_what_was_rolled_back() -> None:
    figure = pruning_figure(PRUNING)
    assert figure is not None
    kept, undone = figure["data"]
    assert list(kept["y"]) == [98.5, 98.0, 97.25]
    assert list(undone["y"]) == [91.0]
    assert kept["name"] == "kept (simulated)"
    assert pruning_figure(replace(PRUNING, rounds=())) is None


def colours(value: object, key: str = "") -> set[str]:
    """Every colour of a figure that the page may swap."""
    if isinstance(value, dict):
        return set().union(*(colours(item, name) for name, item in value.items()), set())
    if isinstance(value, list | tuple):
        return set().union(*(colours(item, key) for item in value), set())
    named = "color" in key and isinstance(value, str) and value.startswith(("#", "rgb"))
    return {value} if named else set()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["plot-formats", "plot-pruning", "plot-front", "plot-choices"])
def test_every_colour_has_a_dark_partner(name: str) -> None:
    figure: Figure = figures(RESULT)[name]
    unknown = colours(figure) - PALETTE.keys() - {"rgba(0,0,0,0)"}
    assert not unknown
    json.dumps(figure, allow_nan=False)


def test_hostile_names_stay_text_in_every_section() -> None:
    page = Page(render_html(HOSTILE_RESULT))
    assert not any(tag in {"img", "b", "i", "iframe"} for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, found in page.tags for name in found)
    assert len(page.scripts) == 3
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert {"formats", "pruning", "training", "allocation"} <= set(ids)
    assert len(ids) == len(set(ids))


def test_junit_has_the_facts_with_their_kinds() -> None:
    root = ET.fromstring(junit_xml(RESULT))  # noqa: S314 - our own output
    found = {each.get("name"): each.get("value") or "" for each in root.iter("property")}
    assert found["pruning cost after"] == "6600000.0 instructions (simulated)"
    assert found["pruning goal"] == "not reached"
    assert found["allocation weight-bytes"] == "64000.0 (estimated)"
    assert found["quantization-aware training"] == "96.0 -> 98.25 % (measured)"
    assert "int8 x" in found["weights, formats of layers"]
    ET.fromstring(junit_skipped(HOSTILE[3], HOSTILE[1], HOSTILE[6]))  # noqa: S314


def test_the_overview_has_every_target_and_its_state() -> None:
    text = render_overview("mnist-cnn", entries())
    page = Page(text)
    links = [found["href"] for tag, found in page.tags if tag == "a"]
    assert "cpu-litert/report.html" in links
    assert "cortex-m4%40nucleo-f446re/report.html" in links
    assert "gone/report.html" not in links
    words = " ".join(page.words)
    assert "ES411: no such operator" in words
    assert "skipped" in words
    assert "no CUDA device with FP8" in words
    assert {'id="plot-targets"', 'id="plot-front"'} <= {
        f'id="{found["id"]}"' for _, found in page.tags if "id" in found
    }
    assert text == render_overview("mnist-cnn", entries())


def test_the_overview_draws_each_kind_with_its_symbol() -> None:
    page = Page(render_overview("mnist-cnn", entries()))
    (data,) = (text for text in page.scripts if text.startswith('{"dark"'))
    traces = json.loads(data)["figures"]["plot-targets"]["data"]
    times = {trace["name"]: trace["marker"]["symbol"] for trace in traces if trace["xaxis"] == "x2"}
    assert times["cpu-litert"] == "circle"
    assert times["cortex-m4@nucleo-f446re"] == "square-open"
    assert "float, cpu-litert" in times


def test_a_skipped_target_has_a_page_that_says_so() -> None:
    files = skipped_files(HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[5])
    assert set(files) == {"report.html", "junit.xml"}
    page = Page(files["report.html"])
    assert not any(tag in {"img", "b", "i"} for tag, _ in page.tags)
    assert any("skipped: " in words for words in page.words)
    assert len(page.scripts) == 2, "no plots, so no Plotly"
