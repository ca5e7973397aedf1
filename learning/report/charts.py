"""Small inline SVG charts: lines over model versions, and a reliability plot.

Every text is escaped. Colours come from the style sheet of the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from learning.gate.statistics import Bin

WIDE, NARROW = 980, 480
_HEIGHT = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 130, 34, 42


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a value per x position, or None. A name has the same `color` in every chart."""

    name: str
    values: tuple[float | None, ...]
    color: int = 0
    is_total: bool = False


def line_chart(x_names: Sequence[str], lines: Sequence[Line], *, title: str, unit: str, width: int = WIDE) -> Markup:
    """Draw lines with points over named positions, each with its name at the right end.

    `title` is read by screen readers.
    """
    top = _nice_top(max((value for line in lines for value in line.values if value is not None), default=1.0))
    plot_width, plot_height = width - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    step = plot_width / max(len(x_names) - 1, 1)

    def x_of(idx: int) -> float:
        return _LEFT + (idx * step if len(x_names) > 1 else plot_width / 2)

    def y_of(value: float) -> float:
        return _TOP + plot_height * (1 - value / top)

    parts = [_grid(y_of, [top * share / 4 for share in range(5)], width - _RIGHT)]
    parts += [_text(x_of(idx), _HEIGHT - 18, _short(name), "tick", "middle") for idx, name in enumerate(x_names)]
    parts.append(_text(_LEFT - 40, 14, unit, "tick", "start"))
    places = _apart([(y_of(_last(line)), idx) for idx, line in enumerate(lines)], _TOP, _HEIGHT - _BOTTOM)
    for idx, line in enumerate(lines):
        kind = "total" if line.is_total else f"s{line.color % 6}"
        points = [(x_of(place), y_of(value)) for place, value in enumerate(line.values) if value is not None]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(kind, path))
        for place, value in enumerate(line.values):
            if value is not None:
                label = f"{line.name}, {x_names[place]}: {value:.1f}"
                parts.append(_dot(x_of(place), y_of(value), kind, label))
        if points:
            parts.append(_text(points[-1][0] + 12, places[idx] + 4, _short(line.name, 18), f"name {kind}", "start"))
    return _svg(parts, title, width)


def reliability_chart(bins: Sequence[Bin], *, title: str) -> Markup:
    """Plot the share of accepted suggestions over the model's confidence; the area of a point shows its answers.

    On the diagonal both are equal. `title` is read by screen readers.
    """
    side = _HEIGHT - _TOP - _BOTTOM
    width = _LEFT + side * 1.6 + 20

    def x_of(value: float) -> float:
        return _LEFT + side * 1.6 * value

    def y_of(value: float) -> float:
        return _TOP + side * (1 - value)

    most = max((each.n for each in bins), default=1)
    parts = [_grid(y_of, [0, 0.25, 0.5, 0.75, 1], x_of(1), percent=True)]
    parts += [
        _text(x_of(share), _HEIGHT - 24, f"{100 * share:.0f} %", "tick", "middle") for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    parts.append(_text(_LEFT - 40, 14, "accepted", "tick", "start"))
    parts.append(_text(x_of(0.5), _HEIGHT - 6, "confidence", "tick", "middle"))
    diagonal = Markup('<line class="diagonal" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    parts.append(diagonal.format(x_of(0), y_of(0), x_of(1), y_of(1)))
    path = " ".join(f"{x_of(each.confidence):.1f},{y_of(each.right):.1f}" for each in bins)
    parts.append(Markup('<polyline class="line s0" points="{}"/>').format(path))
    for each in bins:
        label = f"confidence {100 * each.confidence:.0f} %: {100 * each.right:.0f} % of {each.n} accepted"
        parts.append(_dot(x_of(each.confidence), y_of(each.right), "s0", label, 3 + 7 * (each.n / most) ** 0.5))
    return _svg(parts, title, width)


def _svg(parts: Sequence[Markup], title: str, width: float) -> Markup:
    body = Markup("").join(parts)
    return Markup('<svg viewBox="0 0 {:.0f} {}" role="img" aria-label="{}">{}</svg>').format(
        width, _HEIGHT, title, body
    )


def _grid(y_of: Callable[[float], float], values: Sequence[float], right: float, *, percent: bool = False) -> Markup:
    lines = []
    for value in values:
        y = y_of(value)
        lines.append(
            Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(_LEFT, y, right, y)
        )
        shown = f"{100 * value:.0f} %" if percent else f"{value:g}"
        lines.append(_text(_LEFT - 8, y + 4, shown, "tick", "end"))
    return Markup("").join(lines)


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> Markup:
    line = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return line.format(kind, x, y, anchor, text)


def _dot(x: float, y: float, kind: str, label: str, radius: float = 4.0) -> Markup:
    circle = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>')
    return circle.format(kind, x, y, radius, label)


def _last(line: Line) -> float:
    return next((value for value in reversed(line.values) if value is not None), 0.0)


def _apart(places: Sequence[tuple[float, int]], low: float, high: float, gap: float = 15.0) -> dict[int, float]:
    """Return the y positions of names by line, moved apart so that they do not overlap, inside the plot."""
    moved: dict[int, float] = {}
    at = low - gap
    for y, idx in sorted(places):
        at = max(y, at + gap)
        moved[idx] = at
    over = at - high
    return {idx: y - over if over > 0 else y for idx, y in moved.items()}


def _nice_top(value: float) -> float:
    """Return the next number that is 1, 2, 4, 5 or 8 times a power of ten."""
    scale = 1.0
    while value > 10 * scale:
        scale *= 10
    while value < scale and scale > 1e-3:
        scale /= 10
    return next((step * scale for step in (1, 2, 4, 5, 8, 10) if step * scale >= value), 10 * scale)


def _short(name: str, most: int = 14) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
