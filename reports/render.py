"""One self-contained HTML file per device: opens offline, asks the network for nothing.

Plotly's script, the page's own script and the style sheet are inlined. A content
security policy allows exactly these two scripts by their hashes and no request
of any kind, so that even a hole in the escaping could neither run nor load
anything. Styles stay inline because Plotly sets style attributes itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

import edgesmith
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.reports.plots import figures
from edgesmith.reports.plotstyle import PALETTE
from edgesmith.reports.view import build_view

TEMPLATES = Path(__file__).parent / "templates"

# What could end a script element, open a comment in it, or end a line in JavaScript.
_SCRIPT_ESCAPES = str.maketrans(
    {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
)


def render_html(result: DeploymentResult) -> str:
    """The report of a result; the same result gives the same text.

    Returns:
        A complete HTML document, about 5 MB of which are Plotly's script.
    """
    return render_page(
        "report.html.j2",
        figures(result),
        style="device.css" if result.device else None,
        view=build_view(result),
    )


def render_page(
    template: str,
    shown: Mapping[str, object] | None = None,
    *,
    style: str | None = None,
    **values: object,
) -> str:
    """A page from a template that extends `page.html.j2`.

    Args:
        shown: plot id -> figure; Plotly is left out where there is none.
        style: another style sheet.
        values: what the template says.
    """
    plots = dict(shown or {})
    scripts = (_plotly(), _source("report.js")) if plots else (_source("report.js"),)
    return (
        _environment()
        .get_template(template)
        .render(
            plots=frozenset(plots),
            data=inline_json({"figures": plots, "dark": PALETTE}),
            policy=_policy(scripts),
            style=_source("report.css") + (_source(style) if style else ""),
            plotly=scripts[0] if plots else None,
            script=scripts[-1],
            version=edgesmith.__version__,
            **values,
        )
    )


def inline_json(data: object) -> Markup:
    """JSON that is safe inside a script element, whatever strings it holds."""
    text = json.dumps(data, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return Markup(text.translate(_SCRIPT_ESCAPES))  # noqa: S704 - every markup character is escaped


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _source(name: str) -> Markup:
    """A file of this package as it stands, for inlining."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704 - our own file


@cache
def _plotly() -> Markup:
    return Markup(get_plotlyjs())  # noqa: S704 - the library's own source


def _policy(scripts: tuple[Markup, ...]) -> str:
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@cache
def _digest(script: Markup) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
