"""Plots as inline SVG: heat map, shares with intervals, bars, histogram, a line with its band. Nothing is fetched, nothing runs.

Text takes the page's own colour, so that a plot is readable on light and dark. Colours are Okabe and Ito's (2008), told apart with
every common colour blindness; whatever a colour says is also written or has a shape. Labels are escaped here.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

BLUE, ORANGE, GREEN, PINK, VERMILION, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7f7f7f"
SERIES = (BLUE, ORANGE, GREEN, PINK, VERMILION, SKY, GREY)
WIDTH = 860
_LABEL_WIDTH = 250
_LABEL_CHARACTERS = 38
_LINE = "#8a8f98"
# from pale to full: lightness alone tells them apart, which every kind of sight sees
_SCALE = ((226, 236, 246), (170, 205, 232), (107, 167, 211), (41, 117, 178), (4, 66, 120))


class Share(NamedTuple):
    """A row of `shares`: a share with its interval, and what stands at the right."""

    name: str
    value: float
    low: float
    high: float
    note: str


class Point(NamedTuple):
    """A point of `line`: place, value and interval."""

    x: float
    y: float
    low: float
    high: float


def heat_map(label: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[tuple[float, str] | None]]) -> Markup:
    """A coloured cell with its words for each row and column; a share of 0 is pale, 1 and more full; None leaves a gap."""
    top, height = 30, 21
    step = (WIDTH - _LABEL_WIDTH) / max(len(columns), 1)
    parts = [_text(_LABEL_WIDTH + step * (k + 0.5), top - 10, name, anchor="middle") for k, name in enumerate(columns)]
    for r, (name, row) in enumerate(zip(rows, cells, strict=True)):
        y = top + r * height
        parts.append(_row_label(name, y + height / 2))
        for k, cell in enumerate(row):
            if cell is not None:
                colour, ink = _coloured(cell[0])
                parts.append(
                    Markup(
                        '<g><title>{}, {}: {}</title><rect x="{}" y="{}" width="{}" height="{}" rx="2" fill="{}"/>'
                        '<text x="{}" y="{}" text-anchor="middle" fill="{}">{}</text></g>'
                    ).format(
                        name, columns[k], cell[1], _n(_LABEL_WIDTH + k * step + 1), _n(y + 1), _n(step - 2), height - 2, colour,
                        _n(_LABEL_WIDTH + (k + 0.5) * step), _n(y + height / 2 + 4), ink, cell[1],
                    )
                )  # fmt: skip
    return _svg(label, top + len(rows) * height + 4, parts)


def shares(label: str, rows: Sequence[Share]) -> Markup:
    """A mark with its 95 % interval for each row, on an axis from 0 to 100 %."""
    left, right, top, height = _LABEL_WIDTH, WIDTH - 110, 24, 20
    scale = _scale(0, 1, left + 6, right - 6)
    bottom = top + len(rows) * height
    parts = [_grid(scale(tick), top - 4, bottom) + _text(scale(tick), top - 10, f"{tick:.0%}", anchor="middle") for tick in _fifths()]
    for r, row in enumerate(rows):
        y = top + (r + 0.5) * height
        parts += [
            _row_label(row.name, y),
            Markup(
                '<g><title>{}: {}</title><path d="M{} {}H{}" stroke="{}" stroke-width="2.5"/><circle cx="{}" cy="{}" r="4" fill="{}"/></g>'
            ).format(row.name, row.note, _n(scale(row.low)), _n(y), _n(scale(row.high)), BLUE, _n(scale(row.value)), _n(y), BLUE),
            _text(right + 6, y + 4, row.note, soft=True),
        ]
    return _svg(label, bottom + 6, parts)


def bars(label: str, rows: Sequence[tuple[str, Sequence[float], str]], series: Sequence[str] = ("",)) -> Markup:
    """A bar for each row, cut into one part per series, with words at its end; a legend where there are several series."""
    legend = 22 if len(series) > 1 else 0
    left, right, top, height = _LABEL_WIDTH, WIDTH - 110, 6 + legend, 21
    scale = _scale(0, max([sum(values) for _, values, _ in rows], default=0) or 1, left, right)
    parts: list[Markup] = []
    if legend:
        step = (right - left) / len(series)
        for k, name in enumerate(series):
            parts.append(_rect(left + k * step, 4, 11, 11, SERIES[k % len(SERIES)]) + _text(left + k * step + 16, 14, name))
    for r, (name, values, note) in enumerate(rows):
        y, x = top + r * height, 0.0
        parts.append(_row_label(name, y + height / 2))
        for k, value in enumerate(values):
            if value > 0:
                title = f"{name}{', ' + series[k] if series[k] else ''}: {note}"
                parts.append(_rect(scale(x), y + 3, scale(x + value) - scale(x), height - 6, SERIES[k % len(SERIES)], title))
            x += value
        parts.append(_text(scale(x) + 6, y + height / 2 + 4, note, soft=True))
    return _svg(label, top + len(rows) * height + 4, parts)


def histogram(label: str, edges: Sequence[float], counts: Sequence[int], axis: str, written: Callable[[float], str] = str) -> Markup:
    """Counts between neighbouring edges, drawn equally wide whatever the edges are; `written` says an edge."""
    left, right, top, bottom = 56, WIDTH - 12, 12, 190
    step = (right - left) / max(len(counts), 1)
    most = max(counts, default=0) or 1
    height = _scale(0, most * 1.05, bottom, top)
    parts = []
    for tick in _ticks(most):
        parts.append(Markup('<path d="M{} {}H{}" stroke="{}" opacity=".25"/>').format(left, _n(height(tick)), right, _LINE))
        parts.append(_text(left - 6, height(tick) + 4, f"{tick:,.0f}", anchor="end", soft=True))
    for k, count in enumerate(counts):
        title = f"{written(edges[k])} to {written(edges[k + 1])}: {count:,}"
        parts.append(_rect(left + k * step + 1, height(count), step - 2, bottom - height(count), BLUE, title))
    every = max(1, math.ceil(len(edges) / 12))
    for k in range(0, len(edges), every):
        parts.append(_text(left + k * step, bottom + 16, written(edges[k]), anchor="middle"))
    parts.append(_text((left + right) / 2, bottom + 36, axis, anchor="middle", soft=True))
    return _svg(label, bottom + 44, parts)


def line(label: str, points: Sequence[Point], axis: str, *, limit: float | None = None, limit_name: str = "") -> Markup:
    """Shares over a count, with a band for their intervals and, where given, a dashed limit."""
    left, right, top, bottom = 56, WIDTH - 24, 12, 210
    across, height = _scale(0, max(p.x for p in points) or 1, left, right), _scale(0, 1, bottom, top)
    parts = []
    for tick in _fifths():
        parts.append(Markup('<path d="M{} {}H{}" stroke="{}" opacity=".25"/>').format(left, _n(height(tick)), right, _LINE))
        parts.append(_text(left - 6, height(tick) + 4, f"{tick:.0%}", anchor="end", soft=True))
    for tick in _ticks(max(p.x for p in points) or 1):
        parts.append(_text(across(tick), bottom + 16, f"{tick:,.0f}", anchor="middle"))
    band = [(p.x, p.high) for p in points] + [(p.x, p.low) for p in reversed(points)]
    outline = " ".join(f"{_n(across(x))},{_n(height(y))}" for x, y in band)
    path = " ".join(f"{_n(across(p.x))},{_n(height(p.y))}" for p in points)
    parts.append(Markup('<polygon points="{}" fill="{}" opacity=".22"/>').format(outline, BLUE))
    parts.append(Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>').format(path, BLUE))
    for p in points:
        parts.append(
            Markup('<circle cx="{}" cy="{}" r="3.5" fill="{}"><title>{}</title></circle>').format(
                _n(across(p.x)), _n(height(p.y)), BLUE, f"{p.x:,.0f}: {p.y:.1%} ({p.low:.1%} to {p.high:.1%})"
            )
        )
    if limit is not None:
        parts.append(
            Markup('<path d="M{} {}H{}" stroke="{}" stroke-width="1.5" stroke-dasharray="6 4"/>').format(
                left, _n(height(limit)), right, VERMILION
            )
        )
        parts.append(_text(right, height(limit) - 6, limit_name, anchor="end"))
    parts.append(_text((left + right) / 2, bottom + 36, axis, anchor="middle", soft=True))
    return _svg(label, bottom + 44, parts)


def _svg(label: str, height: float, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}" width="{}" height="{}" font-size="12">{}</svg>').format(
        label, WIDTH, _n(height), WIDTH, _n(height), Markup("").join(parts)
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", soft: bool = False) -> Markup:
    dim = Markup(' opacity=".75"') if soft else Markup("")
    return Markup('<text x="{}" y="{}" text-anchor="{}" fill="currentColor"{}>{}</text>').format(_n(x), _n(y), anchor, dim, text)


def _row_label(name: str, y: float) -> Markup:
    """A name at the left, its end kept where it is long: paths differ at the end."""
    short = name if len(name) <= _LABEL_CHARACTERS else "…" + name[-_LABEL_CHARACTERS + 1 :]
    return Markup("<g><title>{}</title>{}</g>").format(name, _text(_LABEL_WIDTH - 8, y + 4, short, anchor="end"))


def _rect(x: float, y: float, width: float, height: float, colour: str, title: str = "") -> Markup:
    inside = Markup("<title>{}</title>").format(title) if title else Markup("")
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" fill="{}">{}</rect>').format(
        _n(x), _n(y), _n(max(width, 0)), _n(max(height, 0)), colour, inside
    )


def _grid(x: float, top: float, bottom: float) -> Markup:
    return Markup('<path d="M{} {}V{}" stroke="{}" opacity=".25"/>').format(_n(x), _n(top), _n(bottom), _LINE)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _fifths() -> tuple[float, ...]:
    return (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def _ticks(most: float) -> list[float]:
    """Some four round numbers from 0 to `most`."""
    power = 10 ** math.floor(math.log10(most / 4)) if most > 4 else 1
    step = next(power * times for times in (1, 2, 5, 10) if most / (power * times) <= 5)
    return [k * step for k in range(int(most / step) + 1)]


def _coloured(share: float) -> tuple[str, str]:
    """A share's colour, and the one of black and white that reads on it."""
    place = min(max(share, 0.0), 1.0) * (len(_SCALE) - 1)
    low = min(int(place), len(_SCALE) - 2)
    part = place - low
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(_SCALE[low], _SCALE[low + 1], strict=True))
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 128
    return f"#{red:02x}{green:02x}{blue:02x}", "#000000" if bright else "#ffffff"


def _n(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")
