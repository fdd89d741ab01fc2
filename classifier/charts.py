"""The report's pictures as SVG text: lines and dots over two axes. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 640
HEIGHT: Final = 400
LEFT: Final = 64
RIGHT: Final = 184
TOP: Final = 24
BOTTOM: Final = 52
STEPS: Final = 5

# Distinct also for the colour-blind (Okabe and Ito); the subject of the report first.
COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
STYLE: Final = (
    "<style>svg{background:#fff;font:12px system-ui,sans-serif}text{fill:#333}.grid{stroke:#e4e4e4}"
    ".line{fill:none;stroke-width:2}.dash{fill:none;stroke:#888;stroke-dasharray:4 4}.title{font-weight:600}</style>"
)


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour, joined by a line unless it is `dots`; a dot's area grows with its weight, 0..1."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False
    dashed: bool = False
    weights: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """Where an axis begins and ends, and how its numbers are written."""

    label: str
    low: float
    high: float
    form: str


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """One picture with a legend on the right."""

    def across(value: float) -> float:
        return LEFT + (value - x.low) / (x.high - x.low) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y.low) / (y.high - y.low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text class="title" x="{LEFT}" y="15">{escape(title)}</text>', *_grid(x, y, across, up)]
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        parts += _points(one, colour, across, up) if one.dots else [_path(one, colour, across, up)]
        parts += _legend(one, colour, number)
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return f"{opening}<title>{escape(title)}</title>{STYLE}{''.join(parts)}</svg>\n"


def around(values: Sequence[float]) -> tuple[float, float]:
    """Round bounds for an axis that shows these values."""
    low, high = min(values), max(values)
    step = _round_step(((high - low) or abs(high) or 1) / STEPS)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step or step


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def _grid(x: Axis, y: Axis, across: Callable[[float], float], up: Callable[[float], float]) -> list[str]:
    parts = []
    for value in (x.low + (x.high - x.low) * part / STEPS for part in range(STEPS + 1)):
        at = f"{across(value):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x.form.format(value)}</text>')
    for value in (y.low + (y.high - y.low) * part / STEPS for part in range(STEPS + 1)):
        at = f"{up(value):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{float(at) + 4:.1f}" text-anchor="end">{y.form.format(value)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    centre = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{centre}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x.label)}</text>')
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" {turned}>{escape(y.label)}</text>')
    return parts


def _path(one: Series, colour: str, across: Callable[[float], float], up: Callable[[float], float]) -> str:
    points = " L".join(f"{across(a):.1f} {up(b):.1f}" for a, b in zip(one.x, one.y, strict=True))
    if one.dashed:
        return f'<path class="dash" d="M{points}"/>'
    return f'<path class="line" stroke="{colour}" d="M{points}"/>'


def _points(one: Series, colour: str, across: Callable[[float], float], up: Callable[[float], float]) -> list[str]:
    weights = one.weights or [0.25] * len(one.x)
    return [
        f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="{3 + 9 * math.sqrt(weight):.1f}" '
        f'fill="{colour}" fill-opacity=".75"/>'
        for a, b, weight in zip(one.x, one.y, weights, strict=True)
    ]


def _legend(one: Series, colour: str, number: int) -> list[str]:
    x, y = WIDTH - RIGHT + 16, TOP + 12 + 20 * number
    if one.dots:
        mark = f'<circle cx="{x + 9}" cy="{y - 4}" r="5" fill="{colour}" fill-opacity=".75"/>'
    elif one.dashed:
        mark = f'<path class="dash" d="M{x} {y - 4} h18"/>'
    else:
        mark = f'<path class="line" stroke="{colour}" d="M{x} {y - 4} h18"/>'
    return [mark, f'<text x="{x + 26}" y="{y}">{escape(one.name)}</text>']
