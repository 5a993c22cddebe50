"""The device on the page, in plots and on the console: complete, escaped, silent where absent."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgesmith.pipeline.jsonvalue import to_json
from edgesmith.pipeline.results import ArenaSlot, Device, FlashPart
from edgesmith.pipeline.run_folder import RESULT as RESULT_FILE
from edgesmith.pipeline.run_folder import TargetOutcome
from edgesmith.pipeline.runner import RunRecord
from edgesmith.pipeline.summary import print_summary
from edgesmith.reports.device_plots import arena_figure, device_figures, flash_figure
from edgesmith.reports.plots import figures
from edgesmith.reports.plotstyle import PALETTE, literal
from edgesmith.reports.render import render_html
from tests.reports.sample import HOSTILE, Sample, bare_result, device_result, sample_result
from tests.reports.test_plots import colours_of
from tests.reports.test_render import Page

RESULT = device_result()
assert RESULT.device is not None
DEVICE: Device = RESULT.device
HOLLOW = replace(
    DEVICE,
    layers=(),
    slots=(),
    flash_parts=(),
    flash_sections={},
    ram_sections={},
    mnemonics={},
    sources={},
    flash_limit=None,
    ram_limit=None,
)
SECTIONS = ("device", "arena", "instructions", "flash", "library")


def test_sections_stand_only_where_there_is_a_device() -> None:
    with_one, without = render_html(RESULT), render_html(sample_result())
    for name in SECTIONS:
        assert (f'<section id="{name}"' in with_one, f'id="{name}"' in without) == (True, False)
    assert "--tone-weights" not in without


def test_latency_points_at_the_device() -> None:
    text = render_html(RESULT)
    assert "No latency:" not in text
    assert 'stands under <a href="#device">Device</a>' in text
    assert "No latency:" in render_html(replace(RESULT, device=None))


def test_the_page_says_what_the_estimate_rests_on() -> None:
    text = "".join(Page(render_html(RESULT)).words)
    for words in (DEVICE.emulator, DEVICE.timing, "speed first", "proven optimal"):
        assert words in text
    assert "not proven optimal" not in text
    other = replace(RESULT, device=replace(DEVICE, arena_optimal=False))
    assert "not proven optimal" in render_html(other)


def test_what_does_not_fit_is_marked() -> None:
    assert "does not fit" not in render_html(RESULT)
    small = replace(RESULT, device=replace(DEVICE, ram_limit=20_000))
    assert render_html(small).count("does not fit") == 1


def test_a_hollow_device_says_what_is_missing() -> None:
    text = render_html(replace(bare_result(), device=HOLLOW))
    for sentence in ("No slots:", "No layers:", "No flash map:", "Not recorded."):
        assert sentence in text
    assert len(text) < 100_000  # no plot, no Plotly
    assert 'id="library"' not in text


@pytest.fixture(scope="module")
def hostile() -> Page:
    return Page(render_html(device_result(Sample(layers=9, classes=9, hostile=True))))


def test_hostile_names_of_a_device_stay_text(hostile: Page) -> None:
    assert not any(tag in {"img", "b", "iframe"} for tag, _ in hostile.tags)
    assert not any(name.startswith("on") for _, found in hostile.tags for name in found)
    assert len(hostile.scripts) == 3
    text = "".join(hostile.words)
    for name in HOSTILE[:3]:
        assert text.count(name) >= 3


def test_ids_stay_unique_and_links_lead_somewhere(hostile: Page) -> None:
    ids = [found["id"] for _, found in hostile.tags if "id" in found]
    assert len(ids) == len(set(ids))
    links = {found["href"] for tag, found in hostile.tags if tag == "a"}
    assert {f"#{name}" for name in SECTIONS[:-1]} <= links
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_a_device_adds_little_to_the_page() -> None:
    large = Sample(layers=300)
    added = len(render_html(device_result(large))) - len(render_html(sample_result(large)))
    assert added < 700_000  # of 5 MB


def test_the_same_device_gives_the_same_bytes() -> None:
    assert render_html(device_result()).encode() == render_html(device_result()).encode()


def test_plots_of_a_device() -> None:
    assert set(figures(RESULT)) - set(figures(replace(RESULT, device=None))) == {
        "plot-arena",
        "plot-instructions",
        "plot-flash",
    }
    assert set(device_figures(HOLLOW).values()) == {None}


def test_every_slot_is_a_rectangle_at_its_address_and_time() -> None:
    figure = arena_figure(DEVICE)
    assert figure is not None
    drawn = {
        (trace["name"].lower(), base, height, x - (width - 0.94) / 2, x + (width - 0.94) / 2)
        for trace in figure["data"][:-1]
        for x, width, base, height in zip(
            trace["x"], trace["width"], trace["base"], trace["y"], strict=True
        )
    }
    assert {(a, b, c, round(d, 6), round(e, 6)) for a, b, c, d, e in drawn} == {
        (slot.role, slot.offset, slot.bytes, slot.first, slot.last) for slot in DEVICE.slots
    }
    (line,) = figure["layout"]["shapes"]
    assert line["y0"] == line["y1"] == DEVICE.arena.value


def test_slots_written_over_are_hatched() -> None:
    slots = (
        ArenaSlot("old", "activation", 0, 64, 0, 2),
        ArenaSlot("new", "activation", 16, 64, 2, 3),
    )
    figure = arena_figure(replace(DEVICE, slots=slots))
    assert figure is not None
    hatched = figure["data"][-1]
    assert (hatched["base"], hatched["y"], hatched["x"]) == ([16], [48], [2.0])
    assert hatched["customdata"][0].startswith("<b>new</b> over <b>old</b><br>share 48 bytes")
    apart = arena_figure(replace(DEVICE, slots=slots[:1]))
    assert apart is not None
    assert len(apart["data"]) == 1


@pytest.mark.parametrize(("limit", "lines"), [(30_000, 2), (10_000, 2), (90_000, 1), (None, 1)])
def test_a_ram_limit_is_drawn_where_it_is_near(limit: int | None, lines: int) -> None:
    figure = arena_figure(replace(DEVICE, ram_limit=limit))
    assert figure is not None
    assert len(figure["layout"]["shapes"]) == lines


def test_flash_areas_add_up_even_where_symbols_say_too_much() -> None:
    aliased = FlashPart("kernels", 100, (("a", 60), ("alias of a", 60), ("b", 30)))
    figure = flash_figure((aliased, FlashPart("bias", 8)))
    assert figure is not None
    (tree,) = figure["data"]
    inside = [
        value for value, parent in zip(tree["values"], tree["parents"], strict=True) if parent
    ]
    assert inside == [60, 30, 10]
    assert len(set(tree["ids"])) == len(tree["ids"])


def test_colours_and_names_of_device_plots() -> None:
    found = figures(device_result(Sample(layers=9, hostile=True)))
    assert colours_of(found) <= set(PALETTE)
    text = json.dumps(found, allow_nan=False)
    assert "<img" not in text
    assert "<script" not in text
    assert literal(HOSTILE[0]) in text


def test_the_console_shows_devices(tmp_path: Path) -> None:
    def printed(*, device: bool) -> str:
        content = to_json(RESULT if device else replace(RESULT, device=None))
        (tmp_path / RESULT_FILE).write_text(content)
        console = Console(file=io.StringIO(), width=100)
        outcome = TargetOutcome(RESULT.target, ok=True, folder=str(tmp_path))
        print_summary(RunRecord("run", "", "", "", "", 0.0, (), (outcome,)), console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    text = printed(device=True)
    for words in ("180,782", "of 524,288", "26,776", "26,240", "12,759,692", "90.026"):
        assert words in text
    assert text.count("simulated") == 2
    assert text.count("estimated") == 1
    assert "arena" not in printed(device=False)
