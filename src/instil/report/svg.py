"""Turns matplotlib's drawing into SVG of four elements: `svg`, `g`, `path` and `text`.

matplotlib's own SVG names its parts by identifiers, which clash on a page of many plots, and has
its colours in `style`, which a theme cannot change. Here colours are attributes, text stays text
that can be selected, and a label can never bring markup with it.

Tests: `tests/report/test_build.py`.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from typing import Any

from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from instil.report.charts import text_width

_VERB = {
    Path.MOVETO: "M",
    Path.LINETO: "L",
    Path.CURVE3: "Q",
    Path.CURVE4: "C",
    Path.CLOSEPOLY: "Z",
}
_ANCHOR = {"center": "middle", "right": "end"}


def to_svg(figure: Figure) -> ET.Element:
    """Return a figure as an `svg` element, one unit a CSS pixel; it is drawn at 72 dots an inch.

    A line's `gid` becomes its `title`, which browsers show while the pointer rests on it.
    """
    width, height = (72 * side for side in figure.get_size_inches())
    size = {"width": _number(width), "height": _number(height)}
    root = ET.Element("svg", {**size, "viewBox": f"0 0 {size['width']} {size['height']}"})
    figure.draw(_Renderer(root, width=width, height=height))
    return root


class _Renderer(RendererBase):
    def __init__(self, root: ET.Element, *, width: float, height: float) -> None:
        super().__init__()
        self._open = [root]
        self._size = width, height

    def get_canvas_width_height(self) -> tuple[float, float]:
        return self._size

    def open_group(self, s: str, gid: str | None = None) -> None:
        parent = self._open[-1]
        if s == "line2d" and gid:
            parent = ET.SubElement(parent, "g")
            ET.SubElement(parent, "title").text = gid
        self._open.append(parent)

    def close_group(self, s: str) -> None:
        self._open.pop()

    def draw_path(
        self, gc: GraphicsContextBase, path: Path, transform: Any, rgbFace: Any = None
    ) -> None:
        flipped = transform + Affine2D().scale(1, -1).translate(0, self._size[1])
        segments = path.iter_segments(flipped, remove_nans=True, simplify=False)
        parts = [
            _VERB[code] + ("" if code == Path.CLOSEPOLY else " ".join(map(_number, vertices)))
            for vertices, code in segments
        ]
        attributes = {"d": "".join(parts), "fill": "none"}
        if rgbFace is not None and (opacity := _opacity(gc, rgbFace)):
            attributes["fill"] = to_hex(rgbFace[:3])
            attributes |= {"fill-opacity": _number(opacity)} if opacity < 1 else {}
        width, opacity = gc.get_linewidth(), _opacity(gc, gc.get_rgb())
        if width and opacity:
            attributes |= {"stroke": to_hex(gc.get_rgb()[:3]), "stroke-width": _number(width)}
            attributes |= {"stroke-opacity": _number(opacity)} if opacity < 1 else {}
            dashes: Any = gc.get_dashes()[1]
            if dashes is not None:
                attributes["stroke-dasharray"] = " ".join(map(_number, dashes))
        ET.SubElement(self._open[-1], "path", attributes)

    def draw_text(
        self,
        gc: GraphicsContextBase,
        x: float,
        y: float,
        s: str,
        prop: Any,
        angle: float,
        ismath: bool | str = False,
        mtext: Any = None,
    ) -> None:
        attributes = {
            "fill": to_hex(gc.get_rgb()[:3]),
            "font-size": _number(prop.get_size_in_points()),
        }
        if mtext is not None:
            # Anchored: the browser knows how wide the text is, not we. The baseline is
            # matplotlib's; along it the text stands at its own position.
            place = mtext.get_transform().transform(mtext.get_unitless_position())
            own_x, own_y = place[0], self._size[1] - place[1]
            down, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
            off = down * (x - own_x) + right * (y - own_y)
            x, y = own_x + off * down, own_y + off * right
            anchor = _ANCHOR.get(mtext.get_horizontalalignment())
            attributes |= {"text-anchor": anchor} if anchor else {}
        turn = f" rotate({_number(-angle)})" if angle else ""
        attributes["transform"] = f"translate({_number(x)} {_number(y)}){turn}"
        ET.SubElement(self._open[-1], "text", attributes).text = s

    def get_text_width_height_descent(
        self, s: str, prop: Any, ismath: bool | str
    ) -> tuple[float, float, float]:
        # No font is asked: one that lacks a script would warn, and readers have other fonts.
        size = prop.get_size_in_points()
        return text_width(s, size=size), 0.95 * size, 0.2 * size


def _opacity(gc: GraphicsContextBase, colour: Any) -> float:
    if gc.get_forced_alpha():
        return float(gc.get_alpha())
    return float(colour[3]) if len(colour) > 3 else 1.0


def _number(value: float) -> str:
    """Write a length to a hundredth.

    >>> _number(3.14159), _number(-0.001)
    ('3.14', '0')
    """
    return f"{round(float(value), 2) or 0.0:.2f}".rstrip("0").rstrip(".")
