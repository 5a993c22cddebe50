"""What a target leaves that this machine cannot run: a page and a JUnit file that say so."""

from __future__ import annotations

from edgesmith.reports.junit import junit_skipped
from edgesmith.reports.render import render_page
from edgesmith.reports.text import visible


def skipped_files(name: str, target: str, title: str, reason: str) -> dict[str, str]:
    """File name -> text.

    Args:
        name: of the spec.
        reason: why the target was skipped.
    """
    page = render_page(
        "skipped.html.j2",
        name=visible(name),
        target=visible(target),
        title=visible(title),
        reason=visible(reason),
    )
    return {"report.html": page, "junit.xml": junit_skipped(name, target, reason)}
