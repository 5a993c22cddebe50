"""Text and numbers: nothing invisible, nothing over-precise."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.reports.text import (
    byte_size,
    exact,
    form_name,
    label,
    quantity,
    shorten,
    significant,
    visible,
)

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))  # lone surrogates included


@given(ANY_TEXT)
def test_visible_text_is_legal_xml_and_utf8(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    element = ET.Element("a", {"b": shown})
    element.text = shown
    back = ET.fromstring(ET.tostring(element, encoding="unicode"))  # noqa: S314 - made one line up
    assert (back.text or "", back.get("b")) == (shown, shown)


@given(ANY_TEXT)
def test_visible_changes_nothing_that_is_visible_already(text: str) -> None:
    assert visible(visible(text)) == visible(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", r"a\x00b"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb", r"a\x0ab"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\ud800", r"\ud800"),
        ("\U0001ffff", r"\U0001ffff"),
        ("größe 層 👩\u200d🔬", "größe 層 👩\u200d🔬"),
        ("<b>&amp;", "<b>&amp;"),
    ],
)
def test_visible_cases(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_visible_keeps_the_lines_of_a_spec() -> None:
    assert visible("a:\r\n\tb\x07\n", lines=True) == "a:\n\tb\\x07\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.0412, "0.0412"),
        (9.999, "10.00"),
        (123456.0, "123,456"),
        (-0.5, "−0.500"),
        (1.5e-7, "1.50e−07"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "not a number"),
    ],
)
def test_significant(value: float, shown: str) -> None:
    assert significant(value) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (97.804, "%", "97.80 %"),
        (-0.25, "points", "−0.25 points"),
        (0.20431, "ms", "0.204 ms"),
        (2.4871, "x", "2.49×"),
        (512, "bytes", "512 bytes"),
        (93_408, "bytes", "93.4 kB"),
        (2_629_632, "bytes", "2.63 MB"),
        (math.nan, "ms", "not a number ms"),
    ],
)
def test_quantity(value: float, unit: str, shown: str) -> None:
    assert quantity(value, unit) == shown


@given(st.floats(0, 1e15))
def test_byte_size_names_a_unit(value: float) -> None:
    assert byte_size(value).split(" ")[1] in {"bytes", "kB", "MB", "GB"}


def test_exact_keeps_every_digit() -> None:
    assert exact(0.1 + 0.2, "ms") == "0.30000000000000004 ms"
    assert exact(93_408.0, "bytes") == "93,408 bytes"


@given(st.text(max_size=80), st.integers(3, 40))
def test_shorten_keeps_both_ends(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short == text if len(text) <= limit else (short[0], short[-1]) == (text[0], text[-1])


@pytest.mark.parametrize(
    ("name", "unit", "shown"),
    [
        ("accuracy_drop_points", "points", "Accuracy drop"),
        ("agreement_percent", "%", "Agreement"),
        ("latency_ms p90", "ms", "Latency p90"),
        ("size_bytes", "bytes", "Size"),
        ("bytes", "bytes", "Bytes"),
        ("", "", ""),
    ],
)
def test_label(name: str, unit: str, shown: str) -> None:
    assert label(name, unit) == shown


def test_form_names() -> None:
    assert [form_name(form) for form in ("onnxruntime", "fake-quantized", "fixed-point")] == [
        "ONNX Runtime",
        "Fake-quantized",
        "Fixed-point (device rounding)",
    ]
