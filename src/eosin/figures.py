"""The figures of a report: each from the cells that it is about, left out where there are too few."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .axes import BOTTOM, LEFT, RIGHT, TOP, Labels, Scale, frame, short
from .card import NAME_CHARS
from .drawing import SHAPES, Sheet, width_of
from .gathered import Cell, Gathered

WIDE, HIGH = 520, 380
HEADLINES = ("tp53-linear", "tp53-knn")  # Figure 1 of G2L is about TP53
MANY = 24  # lines and marks that colour and shape still tell apart


@dataclass
class Figure:
    """A drawing with its words. `name` is the name of its file."""

    name: str
    title: str
    caption: str
    sheet: Sheet
    wide: bool = False


def figures(found: Gathered, headline: str = "") -> list[Figure]:
    """All figures that the cells allow.

    Args:
        headline: the benchmark whose score is drawn against size and speed; by default TP53, else the commonest.
    """
    from .charts import genes, heat_map, protocol_gap

    makers: tuple[Callable[..., Iterator[Figure]], ...] = (plism, robustness, protocol_gap, heat_map, genes)
    return [*against_cost(found, headline), *(figure for make in makers for figure in make(found))]


def look(found: Gathered, model: int) -> tuple[str, str]:
    """Colour and shape of a model, the same in every figure; a ring for what a paper printed."""
    m = found.models[model]
    i = found.places[m.name]
    colour, shape = (f"c{i % 8}", SHAPES[(i + i // 8) % 6]) if i < MANY else ("soft", "circle")
    return colour, shape if m.source == "measured" else "ring"


def file_of(found: Gathered, column: int) -> str:
    """A column's benchmark as part of a file's name; with its fingerprint where the benchmark has several columns."""
    c = found.columns[column]
    several = sum(other.benchmark == c.benchmark for other in found.columns) > 1
    name = "".join(x if x in NAME_CHARS else "_" for x in c.benchmark).lstrip(".-") or "benchmark"
    return f"{name}-{c.fingerprint[:6] or 'published'}" if several else name


def rings(found: Gathered, cells: Iterable[Cell]) -> str:
    """A sentence on what the rings of a figure are, where it has any."""
    sources = sorted({found.models[c.model].source for c in cells if c.record is None})
    return f" Rings: as printed ({', '.join(sources)})." if sources else ""


def worth(cell: Cell, metric: str) -> str:
    s = cell.scores[metric]
    return f"{s['mean']:.3f}" + (f" ± {s['std']:.3f}" if s.get("std") is not None else "")


# --- accuracy against parameters and against speed (G2L, Figure 1)


def against_cost(found: Gathered, headline: str = "") -> Iterator[Figure]:
    """The headline's score against parameters, and against tiles a second as measured on one device."""
    column = _headline(found, headline)
    if column is None:
        return
    c = found.columns[column]
    cells = [x for x in found.of(column) if x.mean(c.metric) is not None]
    sized = [(float(p), x) for x in cells if (p := found.models[x.model].params)]
    if len(sized) > 1:
        yield Figure(
            "accuracy-parameters",
            f"{c.benchmark}: {c.metric} against parameters",
            f"Up and to the left is better: more {c.metric} from a smaller model.{rings(found, cells)}",
            _scatter(found, sized, c.metric, "parameters"),
        )
    devices: dict[str, list[tuple[float, Cell]]] = {}
    for x in cells:
        for device, rate in found.models[x.model].rate.items():
            devices.setdefault(device, []).append((rate, x))
    device, timed = max(devices.items(), key=lambda item: len(item[1]), default=("", []))
    if len(timed) > 1:
        others = f" Measured on other devices and not shown: {len(devices) - 1} devices." if len(devices) > 1 else ""
        yield Figure(
            "accuracy-speed",
            f"{c.benchmark}: {c.metric} against speed",
            f"Up and to the right is better. Tiles a second from disk to embedding, as measured on {device}.{others}",
            _scatter(found, timed, c.metric, f"tiles a second ({device[:40]})"),
        )


def _headline(found: Gathered, asked: str) -> int | None:
    """The column that the figure is about: as asked, else TP53, else the one with the most models."""
    size = {i: 0 for i in range(len(found.columns))}
    for cell in found.cells:
        size[cell.column] += bool(found.models[cell.model].params)
    for name in (asked,) if asked else HEADLINES:
        fitting = [i for i in size if found.columns[i].benchmark == name and size[i] > 1]
        if fitting:
            return max(fitting, key=size.__getitem__)
    return None if asked or not size else max(size, key=size.__getitem__)


def _scatter(found: Gathered, points: list[tuple[float, Cell]], metric: str, x_title: str) -> Sheet:
    tipped = [
        (x, float(cell.scores[metric]["mean"]), cell.model, f"{worth(cell, metric)}, {short(x)}") for x, cell in points
    ]
    return scatter(found, tipped, x_title, metric, log=True)


def scatter(
    found: Gathered, points: list[tuple[float, float, int, str]], x_title: str, y_title: str, log: bool = False
) -> Sheet:
    """Points (x, y, model, tip), the highest labelled first; measured ones filled, printed ones as rings."""
    sheet = Sheet(WIDE, HIGH)
    x = Scale.over([p[0] for p in points], LEFT, WIDE - RIGHT, log)
    y = Scale.over([p[1] for p in points], HIGH - BOTTOM, TOP)
    frame(sheet, x, y, x_title, y_title)
    labels = Labels((LEFT, 0, WIDE, HIGH - BOTTOM))
    ordered = sorted(points, key=lambda p: -p[1])
    for px, py, _, _ in ordered:
        labels.keep_clear(x.at(px), y.at(py), 5)
    for px, py, model, tip in reversed(ordered):
        colour, shape = look(found, model)
        sheet.mark(shape, x.at(px), y.at(py), 5, colour, f"{found.models[model].label}: {tip}")
    for px, py, model, _ in ordered:
        labels.place(sheet, x.at(px), y.at(py), found.models[model].short)
    return sheet


# --- PLISM (H0-mini, Figures 1 and 4)


def plism(found: Gathered) -> Iterator[Figure]:
    """Cosine against top-5 accuracy, and robustness to scanners against robustness to stainings."""
    for i, c in enumerate(found.columns):
        if not c.protocol.startswith("plism-"):
            continue
        of = f"{c.benchmark}" + (f", {c.options['stainings']}" if c.options.get("stainings") else "")
        for file, title, caption, a, b, words in (
            ("cosine-top5", "cosine against top-5 accuracy", "medians over pairs of slides. Up and to the right is more robust.",
             "top5", "cosine", ("median top-5 accuracy", "median cosine")),
            ("scanner-staining", "scanners against stainings", "medians over the pairs that differ in one of the two. Up and to the right is more robust.",
             "top1_inter_staining", "top1_inter_scanner", ("other staining: median top-1", "other scanner: median top-1")),
        ):  # fmt: skip
            points = [
                (float(u), float(v), x.model, f"{u:.3f}, {v:.3f}")
                for x in found.of(i)
                if (u := x.mean(a)) is not None and (v := x.mean(b)) is not None
            ]
            if len(points) > 1:
                yield Figure(
                    f"{file_of(found, i)}-{file}",
                    f"PLISM: {title}",
                    f"{of}: {caption}{rings(found, found.of(i))}",
                    scatter(found, points, *words),
                )


# --- the robustness index over k (G2L, Table 3)


def robustness(found: Gathered) -> Iterator[Figure]:
    """A line a model over the number of neighbours, and what chance reaches, dashed, where the records say it."""
    for i, c in enumerate(found.columns):
        lines = []
        for cell in found.of(i):
            at = {int(m[1]): s for n, s in cell.scores.items() if (m := re.fullmatch(r"robustness_index@(\d+)", n))}
            known = {k: s for k, s in sorted(at.items()) if s.get("mean") is not None}
            if len(known) > 1:
                lines.append((cell, known))
        if not lines:
            continue
        chance = _chance(lines[0][0])
        yield Figure(
            f"{file_of(found, i)}-k",
            f"{c.benchmark}: robustness index over k",
            "Among the k nearest neighbours, how the same tissue weighs against the same laboratory; higher is more robust. "
            + ("Dashed: what chance reaches for these patches. " if chance else "")
            + "Bars: standard deviation."
            + rings(found, found.of(i)),
            _lines(found, lines, chance),
        )


def _chance(cell: Cell) -> dict[int, float]:
    """Chance at each k, from the details of one record."""
    record = cell.record or {}
    options, details = record.get("protocol", {}).get("options") or {}, record.get("details") or {}
    rule = details.get("same slide left out" if options.get("exclude_same_slide") else "same slide kept")
    out = {}
    for k, found in rule.items() if isinstance(rule, dict) else ():
        values = found.get(f"{options.get('definition', 'D1')} chance") if isinstance(found, dict) else None
        if str(k).isdigit() and isinstance(values, list) and values and isinstance(values[0], (int, float)):
            out[int(k)] = float(values[0])
    return dict(sorted(out.items()))


def _lines(found: Gathered, lines: list[tuple[Cell, dict[int, Any]]], chance: dict[int, float]) -> Sheet:
    lines = sorted(lines, key=lambda line: -list(line[1].values())[-1]["mean"])
    labels = [found.models[cell.model].short for cell, _ in lines]
    room = min(190, max(width_of(text, 10.5) for text in labels) + 14)
    sheet, shown = Sheet(WIDE, HIGH), lines[:MANY]
    ks = sorted({k for _, known in lines for k in known})
    ends = [
        v
        for _, known in lines
        for s in known.values()
        for v in (s["mean"] - (s["std"] or 0), s["mean"] + (s["std"] or 0))
    ]
    x = Scale(min(ks) * 0.9, max(ks) * 1.06, LEFT, WIDE - room, True)
    y = Scale.over([*ends, *chance.values()], HIGH - BOTTOM, TOP)
    frame(sheet, x, y, "k, number of neighbours", "robustness index", ks)
    inside = {k: v for k, v in chance.items() if k in ks}
    if len(inside) > 1:
        sheet.line([(x.at(k), y.at(v)) for k, v in inside.items()], "soft", 1.4, dash=True)
        sheet.text(x.at(min(inside)) + 4, y.at(inside[min(inside)]) - 6, "chance", 10.5, colour="soft")
    floor = HIGH - BOTTOM - 13 * len(shown)
    last = -1e9
    for i, (cell, known) in enumerate(lines):
        colour, shape = look(found, cell.model)
        points = [(x.at(k), y.at(s["mean"])) for k, s in known.items()]
        sheet.line(points, colour, 1.6)
        for (px, py), (k, s) in zip(points, known.items(), strict=True):
            if s.get("std"):
                sheet.line([(px, y.at(s["mean"] - s["std"])), (px, y.at(s["mean"] + s["std"]))], colour, 1)
            sheet.mark(shape, px, py, 4, colour, f"{labels[i]}, k = {k}: {s['mean']:.3f}")
        if i < MANY:  # from the top line down, each label at its line's end or below the label before it
            last = max(points[-1][1] + 4, last + 13)
            last = min(last, floor + 13 * (i + 1))
            sheet.text(x.last + 10, last, labels[i], 10.5, colour=colour)
    return sheet
