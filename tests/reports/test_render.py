"""The HTML text: complete, deterministic, escaped in every context, readable in both themes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.pipeline.results import DeploymentResult
from edgesmith.reports.render import TEMPLATES, inline_json, render_html
from tests.reports.sample import HOSTILE, Sample, bare_result, sample_result

LOADING = {"src", "srcset", "action", "formaction", "data", "poster", "background", "ping"}


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.words.append(data)


@pytest.fixture(scope="module")
def hostile() -> Page:
    result = sample_result(Sample(layers=9, classes=9, hostile=True))
    evil = replace(
        result,
        target=HOSTILE[2],
        target_title=HOSTILE[1],
        artifacts=tuple(replace(one, name=HOSTILE[2], path=HOSTILE[2]) for one in result.artifacts),
    )
    return Page(render_html(evil))


def test_hostile_names_make_no_element_and_no_attribute(hostile: Page) -> None:
    assert not any(tag in {"img", "b", "i", "iframe"} for tag, _ in hostile.tags)
    assert not any(name.startswith("on") for _, found in hostile.tags for name in found)
    assert len(hostile.scripts) == 3


def test_hostile_names_are_shown_as_they_are(hostile: Page) -> None:
    text = "".join(hostile.words)
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[5], HOSTILE[6], HOSTILE[7]):
        assert name in text


def test_inline_data_is_json_and_ends_no_script(hostile: Page) -> None:
    (data,) = (text for text in hostile.scripts if text.startswith('{"dark"'))
    assert set(json.loads(data)) == {"dark", "figures"}
    assert not set("<>&\u2028\u2029") & set(data)


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_inline_json_round_trips_any_text(text: str) -> None:
    shown = str(inline_json({text: text}))
    assert json.loads(shown) == {text: text}
    assert not set("<>&\u2028\u2029") & set(shown)


def test_inline_json_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        inline_json(float("nan"))


def test_policy_allows_exactly_the_scripts_of_the_page(hostile: Page) -> None:
    (policy,) = (
        found["content"]
        for tag, found in hostile.tags
        if tag == "meta" and found.get("http-equiv") == "Content-Security-Policy"
    )
    run = [text for text in hostile.scripts if not text.startswith('{"dark"')]
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_nothing_in_the_page_loads_anything(hostile: Page) -> None:
    for tag, found in hostile.tags:
        assert not LOADING & set(found), tag
        assert tag != "link" or found["href"] == "data:,"
        if tag == "a":
            assert re.match(r"(#|\.\./|[\w%.])", found["href"])
            assert ":" not in found["href"]
    style = (TEMPLATES / "report.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_links_inside_the_page_lead_somewhere(hostile: Page) -> None:
    ids = [found["id"] for _, found in hostile.tags if "id" in found]
    assert len(ids) == len(set(ids))
    inner = {
        found["href"][1:] for tag, found in hostile.tags if tag == "a" and found["href"][0] == "#"
    }
    assert inner <= set(ids)


def test_the_same_result_gives_the_same_bytes() -> None:
    assert render_html(sample_result()).encode() == render_html(sample_result()).encode()


def test_a_bare_result_says_what_is_missing_and_carries_no_plotly() -> None:
    text = render_html(bare_result())
    assert len(text) < 100_000
    for sentence in ("No latency:", "No confusion matrix:", "No drift:", "No parity report:"):
        assert sentence in text
    assert "<td" not in text


FULL = sample_result()


@pytest.mark.parametrize(
    ("result", "gone", "said"),
    [
        (replace(FULL, latency=None), 'id="plot-latency"', "No latency:"),
        (replace(FULL, confusion=None), 'id="plot-confusion"', "No confusion matrix:"),
        (replace(FULL, parity=None), 'id="parity-table"', "No parity report:"),
        (replace(FULL, layers=()), 'id="layer-table"', "No layers:"),
        (replace(FULL, accuracy=(), agreement=None), 'id="plot-accuracy"', "No accuracy:"),
        (replace(FULL, size=(), memory=()), "smaller than float", "No sizes:"),
        (replace(FULL, artifacts=()), "mnist-cnn.tflite", "No artifacts:"),
    ],
    ids=["latency", "confusion", "parity", "layers", "accuracy", "size", "artifacts"],
)
def test_each_part_may_be_missing_alone(result: DeploymentResult, gone: str, said: str) -> None:
    full, text = render_html(FULL), render_html(result)
    assert (gone in full, said in full) == (True, False)
    assert (gone in text, said in text) == (False, True)


def test_every_measurement_shows_its_kind() -> None:
    text = render_html(sample_result())
    figures = re.findall(r'<span class="value"[^>]*>[^<]*</span>(.{0,160})', text, re.DOTALL)
    assert len(figures) >= 20
    assert all('<span class="kind ' in after for after in figures)
    assert '<span class="kind estimated">' in text


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [
        ("ink", "page"),
        ("ink", "surface"),
        ("muted", "page"),
        ("muted", "surface"),
        ("muted", "raised"),
        ("muted", "warm-soft"),
        ("ink", "warm-soft"),
        ("accent", "surface"),
        ("accent", "raised"),
        ("accent", "accent-soft"),
        ("good", "good-soft"),
        ("bad", "bad-soft"),
        ("warm", "warm-soft"),
        ("cool", "cool-soft"),
        ("surface", "good"),
        ("surface", "bad"),
    ],
)
def test_text_contrast_meets_wcag_aa(ink: str, ground: str, theme: int) -> None:
    style = (TEMPLATES / "report.css").read_text()
    pairs = dict(re.findall(r"--([\w-]+): light-dark\((#\w{6}, #\w{6})\)", style))
    first, second = (_luminance(pairs[name].split(", ")[theme]) for name in (ink, ground))
    lighter, darker = max(first, second), min(first, second)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
