"""Axes: from values to pixels, round ticks, labels that do not lie on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .drawing import Sheet, width_of

LEFT, RIGHT, TOP, BOTTOM = 56, 18, 14, 46


@dataclass
class Scale:
    """Values on one axis: from `low` to `high`, linear or logarithmic, between two pixels."""

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], first: float, last: float, log: bool = False) -> Scale:
        """A scale that holds all values with a little room on both sides."""
        low, high = min(values), max(values)
        if log:
            room = (high / low) ** 0.07 if high > low else 2
            return cls(low / room, high * room, first, last, True)
        room = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
        return cls(low - room, high + room, first, last)

    def at(self, value: float) -> float:
        a, b, v = (math.log(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.first + (v - a) / (b - a) * (self.last - self.first)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values; of a logarithmic scale 1, 2 and 5 of each power of ten, or fewer."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [s * 10.0**p for p in powers for s in steps if self.low <= s * 10.0**p <= self.high]
                if len(found) <= wanted + 2 and len(found) > 1:
                    return found
            return found[:: -(-len(found) // wanted)] or [self.low, self.high]
        rough = (self.high - self.low) / wanted
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A tick's value in few letters: 0.85, 300k, 1.1B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.4g}"


def frame(sheet: Sheet, x: Scale, y: Scale, x_title: str, y_title: str, x_ticks: Sequence[float] | None = None) -> None:
    """Grid, ticks and titles of both axes."""
    for value in x.ticks() if x_ticks is None else x_ticks:
        at = x.at(value)
        sheet.line([(at, y.first), (at, y.last)], "grid")
        sheet.text(at, y.first + 16, short(value), 11, "middle", "soft")
    for value in y.ticks():
        at = y.at(value)
        sheet.line([(x.first, at), (x.last, at)], "grid")
        sheet.text(x.first - 6, at + 4, short(value), 11, "end", "soft")
    sheet.line([(x.first, y.first), (x.last, y.first)], "soft")
    sheet.text((x.first + x.last) / 2, y.first + 36, x_title, 12, "middle")
    sheet.text(x.first - 42, (y.first + y.last) / 2, y_title, 12, "middle", angle=-90)


class Labels:
    """Words beside points, each where none lies yet; a point that has no room left stays without.

    Args:
        area: left, top, right, bottom that no label may leave.
    """

    def __init__(self, area: tuple[float, float, float, float]) -> None:
        self.area = area
        self.taken: list[tuple[float, float, float, float]] = []

    def keep_clear(self, x: float, y: float, r: float) -> None:
        self.taken.append((x - r, y - r, x + r, y + r))

    def place(self, sheet: Sheet, x: float, y: float, text: str, size: float = 10.5) -> bool:
        wide = width_of(text, size)
        for dx, dy, anchor in (
            (8, 3.5, "start"), (-8, 3.5, "end"), (0, -8, "middle"), (0, 15, "middle"),
            (7, -6, "start"), (7, 13, "start"), (-7, -6, "end"), (-7, 13, "end"),
        ):  # fmt: skip
            left = x + dx - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
            box = (left, y + dy - size * 0.8, left + wide, y + dy + size * 0.2)
            inside = (
                box[0] >= self.area[0] and box[1] >= self.area[1] and box[2] <= self.area[2] and box[3] <= self.area[3]
            )
            if inside and not any(_touch(box, other) for other in self.taken):
                self.taken.append(box)
                sheet.text(x + dx, y + dy, text, size, anchor, "soft")
                return True
        return False


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
