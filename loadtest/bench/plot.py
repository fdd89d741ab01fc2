"""Lines over two logarithmic axes, as SVG text. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain, groupby

WIDTH, HEIGHT = 680, 380
LEFT, RIGHT, TOP, BOTTOM = 74, 150, 34, 48
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")  # distinct for the colour-blind too
STYLE = (
    "<style>svg{background:#fff;font:12px system-ui,sans-serif}text{fill:#333}.grid{stroke:#e4e4e4}"
    ".line{fill:none;stroke-width:2}.title{font-weight:600}</style>"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A name and its points; a point that is not over 0 has no place on a logarithmic axis and breaks the line."""

    name: str
    x: Sequence[float]
    y: Sequence[float]

    @property
    def stretches(self) -> list[list[tuple[float, float]]]:
        """The points that can be drawn, in runs that nothing breaks."""
        points = zip(self.x, self.y, strict=True)
        return [list(run) for drawable, run in groupby(points, lambda point: min(point) > 0) if drawable]

    @property
    def points(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return list(chain.from_iterable(self.stretches))


def log_log(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> str:
    """Return one picture with a legend on the right; both axes begin and end at a power of ten."""
    points = [point for line in lines for point in line.points]
    low_x, high_x = decades([x for x, _ in points])
    low_y, high_y = decades([y for _, y in points])

    def across(x: float) -> float:
        return LEFT + (math.log10(x) - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(y) - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text class="title" x="{LEFT}" y="18">{escape(title)}</text>']
    for power in range(low_x, high_x + 1):
        at = f"{across(10.0**power):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{10.0**power:,.10g}</text>')
    for power in range(low_y, high_y + 1):
        level = up(10.0**power)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">{10.0**power:,.10g}</text>')
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        for stretch in line.stretches:
            path = " L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in stretch)
            parts.append(f'<path class="line" stroke="{colour}" d="M{path}"/>')
        parts += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>' for x, y in line.points]
        legend_y = TOP + 12 + 20 * number
        parts.append(f'<circle cx="{WIDTH - RIGHT + 20}" cy="{legend_y - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 32}" y="{legend_y}">{escape(line.name)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>'
    )
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return f"{opening}<title>{escape(title)}</title>{STYLE}{''.join(parts)}</svg>\n"


def decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten around these values, at least one apart."""
    if not values:
        return 0, 1
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)
