"""Text and numbers as a reader sees them: safe to print, with units and sensible digits."""

from __future__ import annotations

import math
import unicodedata

# Marks that reorder or hide neighbouring text: a layer name must not lie about itself.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_FORM_NAMES = {"onnxruntime": "ONNX Runtime", "fixed-point": "Fixed-point (device rounding)"}
_UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BYTE_STEPS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def visible(text: str, *, lines: bool = False) -> str:
    r"""`text` with everything that cannot be seen written out as an escape.

    Control characters, lone surrogates, line and paragraph separators,
    bidirectional marks and non-characters become `\xNN` or `\uNNNN`, so the
    result is legal in XML 1.0 and HTML and encodes as UTF-8. Markup is left
    alone: escaping `<` is the template's job, and depends on the context.

    Args:
        lines: keep tabs and line ends (as "\n"), for text of several lines.
    """
    if lines:
        text = text.replace("\r\n", "\n")
    kept = "\n\t" if lines else ""
    return "".join(
        character if character in kept or not _is_unseen(character) else _escape(character)
        for character in text
    )


def _is_unseen(character: str) -> bool:
    if character in _BIDI or (ord(character) & 0xFFFE) == 0xFFFE:
        return True
    return unicodedata.category(character) in _UNSEEN


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the middle replaced by an ellipsis: both ends of a path tell."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def significant(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and grouped thousands; integers stay whole."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}".replace("-", "−")


def count(value: int) -> str:
    """A whole number with grouped thousands."""
    return f"{value:,}".replace("-", "−")


def quantity(value: float, unit: str) -> str:
    """A value with its unit, in the notation its unit calls for."""
    if not math.isfinite(value):
        return f"{significant(value)} {unit}".rstrip()
    if unit in {"bytes", "B"}:
        return byte_size(value)
    if unit in {"%", "percent"}:
        return f"{value:.2f} %".replace("-", "−")
    if unit == "points":
        return f"{value:.2f} points".replace("-", "−")
    if unit in {"x", "×", "ratio"}:
        return f"{significant(value)}×"
    return f"{significant(value)} {unit}".rstrip()


def exact(value: float, unit: str) -> str:
    """The value with every digit it has: the tooltip behind a rounded figure."""
    number = count(int(value)) if math.isfinite(value) and value == int(value) else repr(value)
    return f"{number} {unit}".rstrip()


def byte_size(value: float) -> str:
    """Bytes in decimal multiples: `77.4 kB`, `512 bytes`."""
    for unit, step in _BYTE_STEPS:
        if abs(value) >= step:
            return f"{significant(value / step)} {unit}"
    return f"{value:,.0f} bytes".replace("-", "−")


def compact(value: float) -> str:
    """A number of many digits in millions or thousands: `3.13 M`."""
    for step, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= step:
            return f"{significant(value / (1e3 if letter == 'k' else step))} {letter}"
    return significant(value)


def label(name: str, unit: str = "") -> str:
    """A metric's identifier as words, without the unit that stands beside its value."""
    synonyms = {unit, "percent"} if unit == "%" else {unit}
    words = [word for word in visible(name).replace("_", " ").split() if word not in synonyms]
    text = " ".join(words) or visible(name)
    return text[:1].upper() + text[1:]


def form_name(form: str) -> str:
    """A form of the model as a title: `onnxruntime` is `ONNX Runtime`."""
    return _FORM_NAMES.get(form) or label(form)


def edge_name(edge: str) -> str:
    """An edge between two forms of the model, `ONE → OTHER`, legal in HTML."""
    return " → ".join(visible(form).strip() for form in edge.split("→"))
