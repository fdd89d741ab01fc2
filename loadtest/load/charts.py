"""Line charts as SVG text, drawn in the colours of the page around them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 560, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 26


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its name in the legend, the class that colours it, a value or a gap for each point."""

    name: str
    style: str
    values: Sequence[float | None]


def line_chart(seconds: Sequence[float], lines: Sequence[Line], *, unit: str, limit: float | None = None) -> Markup:
    """Return an SVG of lines over `seconds`; `limit` is drawn as a level that should not be passed."""
    known = [value for line in lines for value in line.values if value is not None]
    if not known or len(seconds) < 2:
        return Markup('<p class="muted">Too short a run to draw.</p>')
    top = nice_ceiling(max([*known, limit] if limit is not None else known))
    first, last = seconds[0], seconds[-1]

    def x(second: float) -> float:
        return _LEFT + (second - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_grid(top, unit, y), _times(first, last, x)]
    if limit is not None:
        parts.append(
            f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(limit):.1f}" y2="{y(limit):.1f}"/>'
        )
    for line in lines:
        path = _path([(x(s), y(v)) if v is not None else None for s, v in zip(seconds, line.values, strict=True)])
        parts.append(f'<path class="{line.style}" d="{path}"/>')
    label = escape(", ".join(line.name for line in lines))
    opening = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label} over the run">'
    return Markup(f"{opening}{''.join(parts)}</svg>")  # noqa: S704 - numbers, and names escaped


def nice_ceiling(value: float) -> float:
    """Return 1, 2, 4, 5 or 8 times a power of ten at or above `value`."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value * (1 - 1e-9))


def _grid(top: float, unit: str, y: Callable[[float], float]) -> str:
    rows = []
    for part in range(5):
        value = top * part / 4
        text = f"{value:,.10g}" + (f" {unit}" if part == 4 and unit else "")
        rows.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        )
    return "".join(rows)


def _times(first: float, last: float, x: Callable[[float], float]) -> str:
    marks = (first, (first + last) / 2, last)
    anchors = ("start", "middle", "end")
    return "".join(
        f'<text x="{x(second):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{second:.0f} s</text>'
        for second, anchor in zip(marks, anchors, strict=True)
    )


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """Return SVG path commands; a gap lifts the pen."""
    commands, pen_down = [], False
    for point in points:
        if point is not None:
            commands.append(f"{'L' if pen_down else 'M'}{point[0]:.1f} {point[1]:.1f}")
        pen_down = point is not None
    return " ".join(commands)
