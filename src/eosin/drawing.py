"""Drawing: a sheet of lines, marks and words in pixels, as SVG and as PNG, and the axes that figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

# light values; the report's style sheet has both sets. c0 to c7: Okabe and Ito (2008), told apart by the colour-blind
COLOURS = {
    "ink": "#1b1f24", "soft": "#5b6470", "grid": "#dfe3e8", "paper": "#ffffff",
    "c0": "#0072b2", "c1": "#d55e00", "c2": "#009e73", "c3": "#b8578c", "c4": "#8a6100", "c5": "#3b93c9",
    "c6": "#555b66", "c7": "#7a5cc4",
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "diamond", "down", "plus", "cross", "ring")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
LETTER = 0.54  # width of a letter of size 1, on average; capitals and digits are wider
CORNERS = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0, -1.15), (1.05, 0.8), (-1.05, 0.8)),
    "down": ((0, 1.15), (1.05, -0.8), (-1.05, -0.8)),
    "diamond": ((0, -1.25), (1.1, 0), (0, 1.25), (-1.1, 0)),
}
STROKES = {"plus": ((-1, 0, 1, 0), (0, -1, 0, 1)), "cross": ((-0.8, -0.8, 0.8, 0.8), (-0.8, 0.8, 0.8, -0.8))}


@dataclass
class Sheet:
    """A drawing of `width` x `height` pixels: what was drawn last lies on top. A colour is a name of COLOURS or #rrggbb."""

    width: float
    height: float
    marks: list[dict[str, Any]] = field(default_factory=list)

    def line(
        self, points: Sequence[tuple[float, float]], colour: str = "ink", width: float = 1, dash: bool = False
    ) -> None:
        self.marks.append({"is": "line", "points": list(points), "colour": colour, "width": width, "dash": dash})

    def box(self, x: float, y: float, w: float, h: float, colour: str, tip: str = "") -> None:
        self.marks.append({"is": "box", "x": x, "y": y, "w": w, "h": h, "colour": colour, "tip": tip})

    def mark(self, shape: str, x: float, y: float, r: float, colour: str, tip: str = "") -> None:
        """A point of one of SHAPES; `tip` is shown when it is pointed at."""
        self.marks.append({"is": "mark", "shape": shape, "x": x, "y": y, "r": r, "colour": colour, "tip": tip})

    def text(
        self, x: float, y: float, text: str, size: float = 11, anchor: str = "start", colour: str = "ink",
        angle: float = 0, bold: bool = False,
    ) -> None:  # fmt: skip
        """Words on the baseline (x, y); anchor start, middle or end; turned by `angle` degrees, clockwise."""
        self.marks.append({"is": "text", "x": x, "y": y, "text": str(text), "size": size, "anchor": anchor, "colour": colour, "angle": angle, "bold": bold})  # fmt: skip


def width_of(text: str, size: float) -> float:
    return size * (len(text) * LETTER + 0.1 * sum(c.isupper() or c.isdigit() for c in text))


# --- SVG


def svg(sheet: Sheet, title: str, alone: bool = True) -> str:
    """The sheet as SVG text; `alone`, with its own colours and white paper, else with the colours of the page around it."""

    def paint(name: str) -> str:
        return name if name.startswith("#") else COLOURS[name] if alone else f"var(--{name})"

    space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    size = f' width="{sheet.width:g}" height="{sheet.height:g}"' if alone else ""
    out = [
        f'<svg{space}{size} viewBox="0 0 {sheet.width:g} {sheet.height:g}" role="img" aria-label="{_attribute(title)}" font-family="{FONT}">'
    ]
    if alone:
        out.append(f'<rect width="100%" height="100%" fill="{COLOURS["paper"]}"/>')
    out += [_SVG[m["is"]](m, paint) for m in sheet.marks]
    return "".join([*out, "</svg>"])


def _attribute(text: str) -> str:
    return escape(_clean(text), {'"': "&quot;"})


def _clean(text: str) -> str:
    """Without the control letters that no XML may hold."""
    return "".join(
        c if c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff" else " " for c in str(text)
    )


def _tipped(mark: dict[str, Any], head: str) -> str:
    """An element with its tip, as a title inside."""
    return (
        f"<{head}/>" if not mark["tip"] else f"<{head}><title>{escape(_clean(mark['tip']))}</title></{head.split()[0]}>"
    )


def _svg_line(m: dict[str, Any], paint: Any) -> str:
    dash = ' stroke-dasharray="4 4"' if m["dash"] else ""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in m["points"])
    return (
        f'<polyline points="{points}" fill="none" stroke="{paint(m["colour"])}" stroke-width="{m["width"]:g}"{dash}/>'
    )


def _svg_box(m: dict[str, Any], paint: Any) -> str:
    place = f'x="{m["x"]:.1f}" y="{m["y"]:.1f}" width="{m["w"]:.1f}" height="{m["h"]:.1f}"'
    return _tipped(m, f'rect {place} fill="{paint(m["colour"])}"')


def _svg_mark(m: dict[str, Any], paint: Any) -> str:
    x, y, r, colour, shape = m["x"], m["y"], m["r"], paint(m["colour"]), m["shape"]
    if shape in CORNERS:
        points = " ".join(f"{x + a * r:.1f},{y + b * r:.1f}" for a, b in CORNERS[shape])
        return _tipped(m, f'polygon points="{points}" fill="{colour}"')
    if shape in STROKES:
        d = "".join(
            f"M{x + a * r:.1f} {y + b * r:.1f}L{x + c * r:.1f} {y + e * r:.1f}" for a, b, c, e in STROKES[shape]
        )
        return _tipped(m, f'path d="{d}" fill="none" stroke="{colour}" stroke-width="2.4"')
    look = f'fill="{paint("paper")}" stroke="{colour}" stroke-width="1.8"' if shape == "ring" else f'fill="{colour}"'
    return _tipped(m, f'circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" {look}')


def _svg_text(m: dict[str, Any], paint: Any) -> str:
    turn = f' transform="rotate({m["angle"]:g} {m["x"]:.1f} {m["y"]:.1f})"' if m["angle"] else ""
    anchor = f' text-anchor="{m["anchor"]}"' if m["anchor"] != "start" else ""
    bold = ' font-weight="600"' if m["bold"] else ""
    place = f'x="{m["x"]:.1f}" y="{m["y"]:.1f}" font-size="{m["size"]:g}"'
    return f'<text {place} fill="{paint(m["colour"])}"{anchor}{bold}{turn}>{escape(_clean(m["text"]))}</text>'


_SVG = {"line": _svg_line, "box": _svg_box, "mark": _svg_mark, "text": _svg_text}


# --- PNG


def png(sheet: Sheet, scale: int = 3) -> bytes:
    """The sheet as a PNG of `scale` pixels each of its own, drawn twice as large and made smaller, for smooth edges."""
    import io

    from PIL import Image, ImageDraw

    k = 2 * scale
    image = Image.new("RGB", (round(sheet.width * k), round(sheet.height * k)), COLOURS["paper"])
    draw = ImageDraw.Draw(image)
    for m in sheet.marks:
        _PNG[m["is"]](image, draw, m, COLOURS.get(m["colour"], m["colour"]), k)
    out = io.BytesIO()
    small = image.resize((round(sheet.width * scale), round(sheet.height * scale)), Image.Resampling.LANCZOS)
    small.save(out, "png", dpi=(96 * scale, 96 * scale), optimize=True)
    return out.getvalue()


def _png_line(image: Any, draw: Any, m: dict[str, Any], colour: str, k: int) -> None:
    points = [(x * k, y * k) for x, y in m["points"]]
    width = max(1, round(m["width"] * k))
    if not m["dash"]:
        return draw.line(points, fill=colour, width=width, joint="curve")
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        length = math.hypot(x1 - x0, y1 - y0)
        for at in range(0, int(length), 8 * k):
            a, b = at / length, min(at + 4 * k, length) / length
            draw.line(
                [(x0 + a * (x1 - x0), y0 + a * (y1 - y0)), (x0 + b * (x1 - x0), y0 + b * (y1 - y0))], colour, width
            )


def _png_box(image: Any, draw: Any, m: dict[str, Any], colour: str, k: int) -> None:
    draw.rectangle([m["x"] * k, m["y"] * k, (m["x"] + m["w"]) * k, (m["y"] + m["h"]) * k], fill=colour)


def _png_mark(image: Any, draw: Any, m: dict[str, Any], colour: str, k: int) -> None:
    x, y, r, shape = m["x"] * k, m["y"] * k, m["r"] * k, m["shape"]
    if shape in CORNERS:
        draw.polygon([(x + a * r, y + b * r) for a, b in CORNERS[shape]], fill=colour)
    elif shape in STROKES:
        for a, b, c, e in STROKES[shape]:
            draw.line([x + a * r, y + b * r, x + c * r, y + e * r], fill=colour, width=round(2.4 * k))
    elif shape == "ring":
        draw.ellipse([x - r, y - r, x + r, y + r], fill=COLOURS["paper"], outline=colour, width=round(1.8 * k))
    else:
        draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)


def _png_text(image: Any, draw: Any, m: dict[str, Any], colour: str, k: int) -> None:
    from PIL import Image, ImageDraw, ImageFont

    font: Any = ImageFont.load_default(m["size"] * k)
    place, anchor = (m["x"] * k, m["y"] * k), {"start": "ls", "middle": "ms", "end": "rs"}[m["anchor"]]
    heavy = {"stroke_width": max(1, round(m["size"] * k * 0.025)), "stroke_fill": colour} if m["bold"] else {}
    text = _clean(m["text"])
    if not m["angle"]:
        return draw.text(place, text, fill=colour, font=font, anchor=anchor, **heavy)
    side = 2 * math.ceil(font.getlength(text) + m["size"] * k)
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).text((side // 2, side // 2), text, fill=255, font=font, anchor=anchor)
    turned = mask.rotate(-m["angle"], Image.Resampling.BICUBIC)
    image.paste(colour, (round(place[0]) - side // 2, round(place[1]) - side // 2), turned)


_PNG = {"line": _png_line, "box": _png_box, "mark": _png_mark, "text": _png_text}
