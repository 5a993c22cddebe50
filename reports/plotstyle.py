"""What all plots share: colours for both themes, type, axes, and text that stays text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from edgesmith.pipeline.values import Kind
from edgesmith.reports.histogram import nice_ticks
from edgesmith.reports.text import visible

Figure = dict[str, Any]

# Light -> dark. Deployed and float keep one colour each through the whole report.
INK, MUTED, GRID = "#1f2428", "#5b646e", "#e4e7ea"
DEPLOYED, BASELINE = "#0b6e63", "#8a6a3a"
DEPLOYED_FILL, BASELINE_FILL = "rgba(11,110,99,0.16)", "rgba(138,106,58,0.14)"
MARK = "rgba(194,85,10,0.12)"
SERIES = ("#0b6e63", "#b4540a", "#3d5a9e", "#8b3f77", "#5f6b24", "#5b646e")
LOW, HIGH = "#f7f9f9", "#0b5f57"
LESS, SAME, MORE = "#b0460a", "#f5f6f6", "#0b5f57"
# Purposes of flash and parts of RAM, light and dark; the style sheet has the same as `--tone-*`.
TONE_PAIRS = {
    "weights": ("#8fd0c6", "#1f6f65"),
    "bias": ("#c3e4bd", "#3d6b3a"),
    "requantization": ("#f0d58a", "#6f5a1c"),
    "table": ("#e9b9a0", "#7a4a30"),
    "arguments": ("#d9c7a3", "#5c5038"),
    "kernels": ("#a9bdf0", "#34508f"),
    "wiring": ("#c9b8ea", "#584690"),
    "startup": ("#e6b4d2", "#7a3c63"),
    "runtime": ("#b9c6d3", "#45525f"),
    "other": ("#d9dee2", "#3a424a"),
    "arena": ("#8ed0c6", "#206f65"),
    "stack": ("#a8bdf0", "#35508f"),
}
TONES = {name: light for name, (light, _) in TONE_PAIRS.items()}
# Outline, and its fill in light and dark: slots of the arena may lie on each other.
ROLES = {
    "input": ("#3d5a9e", ("rgba(61,90,158,0.20)", "rgba(143,171,240,0.24)")),
    "activation": ("#0b6e63", ("rgba(11,110,99,0.18)", "rgba(79,201,184,0.22)")),
    "scratch": ("#b4540a", ("rgba(180,84,10,0.20)", "rgba(240,153,90,0.24)")),
    "output": ("#8b3f77", ("rgba(139,63,119,0.20)", "rgba(217,147,198,0.24)")),
}
PALETTE = {
    INK: "#e6e8ea",
    MUTED: "#9aa4ae",
    GRID: "#2b3138",
    DEPLOYED: "#4fc9b8",
    BASELINE: "#d3ae73",
    DEPLOYED_FILL: "rgba(79,201,184,0.20)",
    BASELINE_FILL: "rgba(211,174,115,0.16)",
    MARK: "rgba(240,150,80,0.14)",
    "#b4540a": "#f0995a",
    "#3d5a9e": "#8fabf0",
    "#8b3f77": "#d993c6",
    "#5f6b24": "#b7c566",
    LOW: "#1b2024",
    HIGH: "#58d6c4",
    LESS: "#f0915a",
    SAME: "#1d2226",
    **dict(TONE_PAIRS.values()),
    **dict(fill for _, fill in ROLES.values()),
}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross")
KIND_SYMBOLS = {Kind.MEASURED: "circle", Kind.SIMULATED: "diamond", Kind.ESTIMATED: "square-open"}
FONT = (
    'ui-sans-serif, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", '
    '"Noto Sans", "Liberation Sans", Arial, sans-serif'
)


def literal(text: str) -> str:
    """`text` for Plotly, which reads a subset of HTML: shown as it stands, never interpreted."""
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def axis(title: str = "", **more: object) -> Figure:
    return {
        "gridcolor": GRID,
        "zeroline": False,
        "automargin": True,
        "title": {"text": title, "font": {"size": 12, "color": MUTED}, "standoff": 10},
        "tickfont": {"size": 12, "color": MUTED},
        **more,
    }


def logarithmic(values: Sequence[float]) -> Figure:
    """A logarithmic scale with round ticks that reaches a little beyond values above 0."""
    low, high = min(values) / 1.4, max(values) * 1.4
    ticks = nice_ticks(low, high)
    if len(ticks) > 7:
        ticks = ticks[:: -(-len(ticks) // 7)]
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick / 1e6:g} M" if tick >= 1e6 else f"{tick:,.6g}" for tick in ticks],
        "tickangle": 0,
    }


def finish(figure: go.Figure, *, height: int, showlegend: bool = True) -> Figure:
    figure.update_layout(
        template=None,
        height=height,
        autosize=True,
        showlegend=showlegend,
        margin={"l": 12, "r": 12, "t": 12, "b": 12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": INK},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        hoverlabel={"font": {"family": FONT, "size": 12}, "align": "left"},
    )
    return dict(figure.to_plotly_json())
