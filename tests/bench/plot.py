"""Line plots as SVG, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from xml.sax.saxutils import escape

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Points (x, y), all positive, by the name of the line."""

_COLOURS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#555555", "#1f78b4", "#000000")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _KEY = 520, 400, 70, 40, 50, 200


def line_plots(panels: Mapping[str, Series], x_name: str, y_name: str, x_label: Callable[[float], str]) -> str:
    """An SVG document with the panels side by side, by their titles, and one key for all. `x_label` names a value of x."""
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    points = [point for series in panels.values() for line in series.values() for point in line]
    xs = sorted({x for x, _ in points})
    low = 10 ** math.floor(math.log10(min(y for _, y in points)))
    high = 10 ** math.ceil(math.log10(max(y for _, y in points)))
    width = len(panels) * (_WIDTH + _LEFT) + _KEY
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT + _TOP + _BOTTOM}" font-family="sans-serif"'
        ' font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for index, (title, series) in enumerate(panels.items()):
        left = _LEFT + index * (_WIDTH + _LEFT)

        def place(x: float, y: float, left: int = left) -> tuple[float, float]:
            across = math.log(x / xs[0]) / math.log(xs[-1] / xs[0])
            up = math.log(y / low) / math.log(high / low)
            return left + 10 + across * (_WIDTH - 20), _TOP + _HEIGHT * (1 - up)

        out.append(f'<text x="{left}" y="{_TOP - 14}" font-size="14" font-weight="bold">{escape(title)}</text>')
        out.append(f'<rect x="{left}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#999"/>')
        for exponent in range(round(math.log10(low)), round(math.log10(high)) + 1):
            _, y = place(xs[0], 10.0**exponent)
            out.append(f'<line x1="{left}" x2="{left + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**exponent:g}</text>')
        for x in xs:
            across, _ = place(x, low)
            out.append(f'<text x="{across:.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{escape(x_label(x))}</text>')
        out.append(f'<text x="{left + _WIDTH / 2}" y="{_TOP + _HEIGHT + 40}" text-anchor="middle">{escape(x_name)}</text>')
        for name, line in series.items():
            places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
            out.append(f'<polyline points="{places}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
    out.append(f'<text x="{_LEFT - 6}" y="{_TOP - 28}" text-anchor="end">{escape(y_name)}</text>')
    for index, name in enumerate(names):
        x, y = len(panels) * (_WIDTH + _LEFT) + 15, _TOP + 20 + 20 * index
        out.append(f'<line x1="{x}" x2="{x + 20}" y1="{y - 4}" y2="{y - 4}" stroke="{colours[name]}" stroke-width="3"/>')
        out.append(f'<text x="{x + 26}" y="{y}">{escape(name)}</text>')
    return "\n".join([*out, "</svg>", ""])
