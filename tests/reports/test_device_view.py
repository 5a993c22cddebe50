"""The view model of a device: it fits or not, every figure has its kind, tables add up."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.results import ArenaSlot, DeploymentResult, Device, FlashPart
from edgesmith.reports.arena import live_bytes, peak_time, shared
from edgesmith.reports.device import SLOTS_SHOWN, DeviceView, device_glance, device_view
from edgesmith.reports.device_tables import MNEMONICS_SHOWN, tone_of
from edgesmith.reports.junit import junit_xml
from edgesmith.reports.plotstyle import INK, PALETTE, TONE_PAIRS
from edgesmith.reports.render import TEMPLATES
from edgesmith.reports.tables import NOTHING
from edgesmith.reports.view import build_view
from tests.reports.sample import Sample, device_result, sample_result

RESULT = device_result()
assert RESULT.device is not None
DEVICE: Device = RESULT.device
SLOT = st.builds(
    lambda at, size, first, length: ArenaSlot("s", "activation", at, size, first, first + length),
    st.integers(0, 30),
    st.integers(1, 12),
    st.integers(-1, 6),
    st.integers(0, 3),
)


def shown(**changes: Any) -> DeviceView:
    """The view of the sample's device, changed."""
    return device_view(replace(DEVICE, **changes), RESULT.layers)


def _bytes_at(slot: ArenaSlot, time: int) -> set[int]:
    if not slot.first <= time <= slot.last:
        return set()
    return set(range(slot.offset, slot.offset + slot.bytes))


@given(st.lists(SLOT, max_size=8))
def test_live_bytes_are_the_bytes_that_some_slot_covers(slots: list[ArenaSlot]) -> None:
    counted = [
        len(set().union(*(_bytes_at(slot, time) for slot in slots))) for time in range(-1, 8)
    ]
    assert live_bytes(slots, 7) == counted
    assert counted[peak_time(slots, 7) + 1] == max(counted)


@given(st.lists(SLOT, max_size=6))
def test_shared_places_are_exactly_what_two_slots_have_in_common(slots: list[ArenaSlot]) -> None:
    drawn = sorted(
        (time, byte)
        for place in shared(slots)
        for time in range(place.first, place.last + 1)
        for byte in range(place.offset, place.offset + place.bytes)
    )
    counted = sorted(
        (time, byte)
        for index, one in enumerate(slots)
        for other in slots[index + 1 :]
        for time in range(-1, 12)
        for byte in _bytes_at(one, time) & _bytes_at(other, time)
    )
    assert drawn == counted
    assert all(place.slots[0].first <= place.slots[1].first for place in shared(slots))


def test_a_device_read_back_from_json_gives_the_same_view() -> None:
    assert build_view(from_json(DeploymentResult, to_json(RESULT))) == build_view(RESULT)


def test_a_result_written_before_devices_were_known_is_read() -> None:
    text = to_json(sample_result())
    without = re.sub(r',\s*"device": null', "", text)
    assert without != text
    assert from_json(DeploymentResult, without) == sample_result()


def test_meters_state_use_and_room() -> None:
    view = shown(flash_limit=200_000)
    assert (view.flash.over, view.flash.limit_at) == (False, None)
    assert view.flash.room == "180,782 of 200,000 bytes, 90.4 % used, 19.2 kB free"
    assert sum(part.share for part in view.flash.parts) == pytest.approx(0.904, abs=0.001)


def test_what_does_not_fit_says_by_how_much_and_marks_the_limit() -> None:
    view = shown(flash_limit=100_000)
    assert view.flash.over
    assert view.flash.room.endswith("181 % used, 80.8 kB too much")
    assert view.flash.limit_at == pytest.approx(100_000 / 180_782, abs=0.001)


def test_without_a_limit_the_bar_is_the_image() -> None:
    view = shown(flash_limit=None)
    assert (view.flash.limit, view.flash.over) == ("no limit known", False)
    assert sum(part.share for part in view.flash.parts) == pytest.approx(1, abs=0.001)
    assert device_glance(replace(DEVICE, flash_limit=None))[0].compared == ""


def test_ram_has_its_parts_each_of_its_own_kind() -> None:
    meter = shown().ram
    assert [(part.name, part.number.exact, part.number.kind) for part in meter.parts] == [
        ("Arena", "26,240 bytes", "measured"),
        ("Stack", "472 bytes", "simulated"),
        ("Other", "64 bytes", "measured"),
    ]
    assert (meter.number.kind, meter.mixed) == ("simulated", True)


def test_no_other_ram_is_invented_where_no_section_says_so() -> None:
    assert [part.name for part in shown(ram_sections={}).ram.parts] == ["Arena", "Stack"]


def test_costs_keep_their_kinds_and_units() -> None:
    cost = {one.name: (one.number.text, one.number.kind) for one in shown().cost}
    assert cost == {
        "Instructions": ("12,759,692", "simulated"),
        "Cycles": ("16,204,722", "estimated"),
        "Time": ("90.0 ms", "estimated"),
        "Cycles per MAC": ("2.53", "estimated"),
    }


def test_what_was_not_estimated_is_left_out() -> None:
    view = shown(cycles=None, time=None, cycles_per_mac=None, clock_hz=None, board=None)
    assert [one.name for one in view.cost] == ["Instructions"]
    assert view.where == "Arm Cortex-M4"
    assert dict(view.facts)["Clock"] == "not stated"
    assert view.instructions.cycles_kind is None
    assert len(view.instructions.rows[0].cells) == len(shown().instructions.rows[0].cells) - 2
    assert device_glance(replace(DEVICE, time=None))[-1].name == "Instructions"


def test_the_glance_of_a_device_is_its_memory_and_time() -> None:
    glance = build_view(RESULT).glance
    assert [(one.name, one.compared) for one in glance[2:]] == [
        ("Flash", "34.5 % of 524 kB"),
        ("RAM", "20.4 % of 131 kB"),
        ("Time", "per inference at 180 MHz"),
    ]


@pytest.mark.parametrize(
    ("bound", "optimal", "said"),
    [
        (26_240, True, "no plan of these layers needs less than 26,240 bytes"),
        (25_000, True, "no plan of these layers needs less than 25,000 bytes"),
        (25_000, False, "needs less than 25,000 bytes; this one is 4.96 % above"),
        (26_240, False, "no plan of these layers needs less than 26,240 bytes"),
    ],
)
def test_the_arena_says_how_good_it_is(bound: int, optimal: bool, said: str) -> None:
    arena = shown(arena_bound=bound, arena_optimal=optimal).arena
    assert arena.bound.endswith(said)
    assert arena.optimal is optimal


@pytest.mark.parametrize(
    ("plan", "words"), [("speed", "speed first"), ("bands", "memory first, in bands"), ("?", "?")]
)
def test_plans_are_named(plan: str, words: str) -> None:
    assert shown(plan=plan).arena.plan == words


def test_the_peak_names_its_layer() -> None:
    assert shown().arena.peak == "Most bytes are in use at layer 2, stage1.2.conv2d: 26,240."


def test_slots_are_listed_largest_first_with_lifetimes() -> None:
    rows = shown().arena.rows
    assert len(rows) == len(DEVICE.slots)
    sizes = [int(row.cells[0].key) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    ends = {row.name: (row.cells[3].text, row.cells[4].text) for row in rows}
    assert ends["input"] == ("start", "0")
    assert ends[RESULT.layers[-1].name] == ("21", "end")
    many = shown(slots=DEVICE.slots * 40).arena
    assert len(many.rows) == SLOTS_SHOWN
    assert many.shown == f"the 200 largest of {40 * len(DEVICE.slots):,} slots"


def test_layers_join_the_graph_by_name() -> None:
    first, second, *rest = DEVICE.layers
    rows = shown(layers=(first, replace(second, name="band 2 of it"), *rest)).instructions.rows
    assert [row.cells[0].text for row in rows[:4]] == ["8 × 8", NOTHING, "8 × 8", "8"]
    assert float(rows[0].cells[3].key) == first.instructions / first.macs
    assert rows[3].cells[3].text == NOTHING  # an addition has no MACs
    assert max(row.cells[2].share or 0 for row in rows) == 1


def test_instructions_outside_the_layers_are_stated() -> None:
    assert shown().instructions.outside == "1,804 of them (0.014 %) outside the layers"
    inside = sum(layer.instructions for layer in DEVICE.layers)
    exactly = replace(DEVICE.instructions, value=inside)
    assert shown(instructions=exactly).instructions.outside == ""


def test_mnemonics_are_the_most_executed_ones_of_all() -> None:
    found = shown().instructions
    counts = sorted(DEVICE.mnemonics.values(), reverse=True)
    assert [bar.amount for bar in found.mnemonics] == [
        f"{value:,}" for value in counts[:MNEMONICS_SHOWN]
    ]
    assert found.mnemonics_said == "the 15 most executed of 21, 95.8 % of all instructions"
    few = shown(mnemonics={"b": 1, "a": 3}).instructions
    assert [(bar.name, bar.share) for bar in few.mnemonics] == [("a", 1.0), ("b", 0.3333)]
    assert few.mnemonics_said == "all 2 that were executed"


def test_the_flash_map_covers_the_image() -> None:
    found = shown().flash_map
    assert sum(row.share for row in found.purposes) == pytest.approx(1, abs=0.001)
    sizes = [int(row.cells[0].key) for row in found.purposes]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == DEVICE.flash.value
    assert found.symbols[0].name == "model_weights_018"
    assert found.symbols_said == "The 60 largest symbols"


@pytest.mark.parametrize(
    ("purpose", "tone"),
    [("weights", "weights"), ("kernel", "kernels"), ("unnamed", "other"), ('"><b>', "other")],
)
def test_purposes_have_colours(purpose: str, tone: str) -> None:
    assert tone_of(purpose) == tone
    part = shown(flash_parts=(FlashPart(purpose, 7),)).flash_map.purposes[0]
    assert part.tone == tone


def test_style_sheet_and_plots_agree_on_colours_that_text_can_be_read_on() -> None:
    style = (TEMPLATES / "device.css").read_text()
    pairs = re.findall(r"--tone-([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    assert {name: (light, dark) for name, light, dark in pairs} == TONE_PAIRS
    inks = (INK, PALETTE[INK])
    for name, *grounds in pairs:
        for ink, ground in zip(inks, grounds, strict=True):
            assert contrast(ink, ground) >= 4.5, name


def contrast(one: str, other: str) -> float:
    """The WCAG contrast ratio of two colours."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("firmware/link.ld", "firmware/link.ld"),
        ("/elsewhere/build/model.c", "model.c"),
        ("C:\\build\\model.c", "model.c"),
        ("\\\\server\\share\\model.h", "model.h"),
    ],
)
def test_files_show_nothing_of_the_machine_that_made_them(path: str, name: str) -> None:
    assert shown(sources={path: "what"}).files == ((name, "what"),)


def test_junit_has_the_device_as_properties_with_kinds() -> None:
    root = ET.fromstring(junit_xml(RESULT))  # noqa: S314 - our own output
    found = {one.get("name"): one.get("value") for one in root.iter("property")}
    assert found["device flash"] == "180782.0 bytes (measured, n = 1)"
    assert found["device RAM"] == "26776.0 bytes (simulated, n = 8)"
    assert found["device instructions"] == "12759691.5 instructions (simulated, n = 8)"
    assert "device time" in found
    bare = junit_xml(replace(RESULT, device=replace(DEVICE, time=None)))
    assert 'name="device time"' not in bare
    assert "device" not in junit_xml(sample_result())


def test_small_models_have_a_view_too() -> None:
    result = device_result(Sample(layers=1, classes=2))
    view = build_view(result).device
    assert view is not None
    assert len(view.instructions.rows) == 1


def test_long_names_are_shortened_in_sentences() -> None:
    long = [replace(layer, name="model/block/" * 30) for layer in DEVICE.layers]
    assert len(shown(layers=tuple(long)).arena.peak) < 130
