"""Pictures for pages as SVG text, the same on every machine, readable in light and in dark."""

from collections.abc import Mapping
from xml.sax.saxutils import escape

_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.grid { stroke: #d1d9e0 } .bar { stroke: #59636e; stroke-width: 2 } .dot { fill: #59636e }
.main { stroke: #0969da; fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .grid { stroke: #3d444d } .bar { stroke: #9198a1 } .dot { fill: #9198a1 }
  .main { stroke: #4493f8; fill: #4493f8 }
}
</style>"""
_LEFT, _WIDTH, _ROW, _TOP = 150, 480, 24, 36


def intervals(rows: Mapping[str, tuple[float, float, float]], title: str, *, main: str = "") -> str:
    """A line per row: a dot at its value between the ends of its interval (value, low, high), all >= 0.

    main: the row that is set off.
    """
    most = max(10.0, *(high for _, _, high in rows.values()))
    step = next(step for step in (2, 5, 10, 20, 50, 100, most) if most / step <= 6)
    height = _TOP + _ROW * len(rows) + 28
    total = _LEFT + _WIDTH + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" role="img" '
        f'width="{total}" height="{height}">',
        _STYLE,
        f'<text x="{_LEFT}" y="18">{escape(title)}</text>',
    ]

    def x(value: float) -> str:
        return f"{_LEFT + _WIDTH * value / most:.1f}"

    bottom = _TOP + _ROW * len(rows)
    for mark in range(0, int(most / step) + 1):
        at = x(mark * step)
        lines.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP - 8}" y2="{bottom}"/>')
        lines.append(
            f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{mark * step:g}</text>'
        )
    for row, (name, (value, low, high)) in enumerate(rows.items()):
        y, kind = _TOP + _ROW * row + 8, " main" if name == main else ""
        shown = escape(name)
        lines.append(f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{shown}</text>')
        lines.append(f'<line class="bar{kind}" x1="{x(low)}" x2="{x(high)}" y1="{y}" y2="{y}"/>')
        lines.append(f'<circle class="dot{kind}" cx="{x(value)}" cy="{y}" r="5"/>')
    return "\n".join([*lines, "</svg>"]) + "\n"
