"""More figures: the gap between fold rules, the heat map, and the genes that are predicted best and worst."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .axes import BOTTOM, RIGHT, Scale, short
from .drawing import Sheet, width_of
from .figures import WIDE, Figure, file_of, look, worth
from .gathered import Cell, Gathered

GAPS = 40  # rows of the figure of gaps; the largest are shown
ENDS = 8  # genes at each end
# cividis (Nunez et al. 2018), made for all eyes, at nine places
CIVIDIS = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838")


def protocol_gap(found: Gathered) -> Iterator[Figure]:
    """Where a model has been scored with the paper's folds and with grouped ones: both, and the gap between."""
    pairs = []
    by_question: dict[str, dict[str, Cell]] = {}
    for cell in found.cells:
        c = found.columns[cell.column]
        rest = json.dumps({k: v for k, v in c.options.items() if k != "folds"}, sort_keys=True, default=str)
        if c.folds and cell.record is not None and cell.mean(c.metric) is not None:
            by_question.setdefault(f"{cell.model} {c.benchmark} {c.protocol} {rest}", {})[c.folds] = cell
    for rules in by_question.values():
        for other in ("grouped", "site"):
            if {"paper", other} <= rules.keys():
                pairs.append((rules["paper"], rules[other], other))
    if not pairs:
        return
    gap = lambda p: p[0].mean(_metric(found, p[0])) - p[1].mean(_metric(found, p[1]))  # noqa: E731
    pairs.sort(key=gap, reverse=True)
    shown, more = pairs[:GAPS], len(pairs) - GAPS
    names = [f"{found.columns[a.column].benchmark}, {found.models[a.model].label}" for a, _, _ in shown]
    left = min(270, max(width_of(n, 10.5) for n in names) + 14)
    sheet = Sheet(WIDE + 60, 34 + 18 * len(shown) + 46)
    floor = sheet.height - 46
    values = [float(x.mean(_metric(found, x)) or 0) for a, b, _ in shown for x in (a, b)]
    x = Scale.over(values, left, sheet.width - 60)
    ruler(sheet, x, 24, floor, "score in the benchmark's own metric")
    for i, (shape, colour, word) in enumerate(
        (("circle", "c1", "the paper's folds"), ("square", "c0", "patients or sites kept together"))
    ):
        sheet.mark(shape, left + 6 + 130 * i, 10, 4.5, colour)
        sheet.text(left + 15 + 130 * i, 14, word, 10.5, colour="soft")
    for i, ((a, b, other), name) in enumerate(zip(shown, names, strict=True)):
        y, metric = 36 + 18 * i, _metric(found, a)
        u, v = float(a.scores[metric]["mean"]), float(b.scores[metric]["mean"])
        sheet.text(left - 8, y + 4, name, 10.5, "end")
        sheet.line([(x.at(u), y), (x.at(v), y)], "soft", 1.6)
        sheet.mark("circle", x.at(u), y, 4.5, "c1", f"{name}, paper: {worth(a, metric)}")
        sheet.mark("square", x.at(v), y, 4.5, "c0", f"{name}, {other}: {worth(b, metric)}")
        sheet.text(sheet.width - 6, y + 4, f"{u - v:+.3f}", 10.5, "end", "soft")
    yield Figure(
        "folds-gap",
        "The paper's folds against grouped folds",
        "Tiles of one patient on both sides of a split let a model look better than it is; the number is paper minus grouped."
        + (f" The {GAPS} largest gaps; {more} more are in the tables." if more > 0 else ""),
        sheet,
    )


def _metric(found: Gathered, cell: Cell) -> str:
    return found.columns[cell.column].metric


def heat_map(found: Gathered) -> Iterator[Figure]:
    """Models by benchmarks; the colour is the place between a column's worst and its best."""
    places: dict[tuple[int, int], tuple[float, Cell]] = {}
    several = len({x.model for x in found.cells if x.record is not None}) > 1
    for i, c in enumerate(found.columns):
        cells = [x for x in found.of(i) if x.mean(c.metric) is not None and (x.record is not None or not several)]
        values = [float(x.scores[c.metric]["mean"]) for x in cells]
        if len(values) < 2 or max(values) == min(values):
            continue
        for x, v in zip(cells, values, strict=True):
            place = (v - min(values)) / (max(values) - min(values))
            places[x.model, i] = (1 - place if c.better == "lower" else place, x)
    columns = sorted(
        {i for _, i in places}, key=lambda i: (found.columns[i].benchmark, found.columns[i].folds != "paper")
    )
    standing: dict[int, list[float]] = {}
    for (model, _), (place, _) in places.items():
        standing.setdefault(model, []).append(place)
    models = sorted(standing, key=lambda m: (-sum(standing[m]) / len(standing[m]), found.models[m].label))
    if len(models) < 2 or len(columns) < 2:
        return
    titles = [
        found.columns[i].benchmark + (f" ({f})" if (f := found.columns[i].folds) not in ("", "paper") else "")
        for i in columns
    ]
    high, wide = (20, 44) if len(models) <= 40 else (11, 16) if len(columns) > 30 else (11, 44)
    wide = wide if len(columns) <= 30 else 16
    size = min(10.5, high * 0.8)
    left = max(width_of(found.models[m].label, size) for m in models) + 12
    top = max(width_of(t, 10.5) for t in titles) * 0.72 + 18
    sheet = Sheet(left + wide * len(columns) + max(width_of(t, 10.5) * 0.7 - wide * (len(titles) - 1 - n) for n, t in enumerate(titles)) , top + high * len(models) + 40)  # fmt: skip
    for n, title in enumerate(titles):
        sheet.text(left + wide * (n + 0.5) + 3, top - 6, title, 10.5, angle=-45)
    for row, m in enumerate(models):
        y = top + high * row
        sheet.text(left - 8, y + high / 2 + size * 0.35, found.models[m].label, size, "end")
        for n, i in enumerate(columns):
            if (m, i) in places:
                place, cell = places[m, i]
                tip = f"{found.models[m].label}, {titles[n]}: {worth(cell, found.columns[i].metric)}"
                colour = CIVIDIS[min(9, int(place * 10))]
                sheet.box(left + wide * n, y, wide - 1, high - 1, colour, tip if len(places) <= 4000 else "")
                if wide > 30 and high > 15:
                    text = f"{cell.scores[found.columns[i].metric]['mean']:.3f}"
                    sheet.text(
                        left + wide * n + wide / 2 - 0.5,
                        y + high / 2 + 3.5,
                        text,
                        9.5,
                        "middle",
                        "#ffffff" if place < 0.5 else "#111111",
                    )
    _legend(sheet, left, top + high * len(models) + 14)
    yield Figure(
        "heat-map",
        "Models and benchmarks",
        "Each column has a scale of its own, from its lowest to its highest score; models in the order of their mean place. "
        "An empty cell was not measured.",
        sheet,
        wide=True,
    )


def _legend(sheet: Sheet, left: float, y: float) -> None:
    for i, colour in enumerate(CIVIDIS):
        sheet.box(left + 42 + 14 * i, y, 14, 11, colour)
    sheet.text(left, y + 9.5, "lowest", 10.5, colour="soft")
    sheet.text(left + 48 + 14 * len(CIVIDIS), y + 9.5, "highest", 10.5, colour="soft")


def genes(found: Gathered) -> Iterator[Figure]:
    """Of each regression of genes, those that the models predict best and worst: mean correlation over folds."""
    for i, c in enumerate(found.columns):
        per_model = {x.model: g for x in found.of(i) if x.record and (g := _per_gene(x.record.get("details") or {}))}
        levels: dict[str, list[float]] = {}
        for of in per_model.values():
            for gene, value in of.items():
                levels.setdefault(gene, []).append(value)
        order = sorted(levels, key=lambda g: -sum(levels[g]) / len(levels[g]))
        if not order:
            continue
        rows = order if len(order) <= 2 * ENDS else [*order[:ENDS], *order[-ENDS:]]
        what = f"All {len(order)} genes" if rows == order else f"Best and worst {ENDS} of {len(order)} genes"
        yield Figure(
            f"genes-{file_of(found, i)}",
            f"{c.benchmark}: best and worst genes",
            f"{what} by the mean over models; a mark a model, its mean correlation over folds.",
            _gene_sheet(found, per_model, rows),
        )


def _gene_sheet(found: Gathered, per_model: dict[int, dict[str, float]], rows: list[str]) -> Sheet:
    models = sorted(per_model, key=lambda m: -sum(per_model[m].values()) / len(per_model[m]))
    named = models[:8]
    left = min(200, max(48, *(width_of(g, 10.5) + 14 for g in rows)))
    plot = 17 * len(rows) + 16
    sheet = Sheet(WIDE, plot + BOTTOM + 16 * ((len(named) + 1) // 2))
    x = Scale.over([v for of in per_model.values() for g, v in of.items() if g in rows], left, WIDE - RIGHT)
    ruler(sheet, x, 6, plot, "Pearson correlation")
    for r, gene in enumerate(rows):
        y = 18 + 17 * r
        sheet.text(left - 8, y + 4, gene, 10.5, "end")
        for k, m in reversed(list(enumerate(models))):
            if gene in per_model[m]:
                colour, shape = look(found, m) if k < len(named) else ("soft", "circle")
                tip = f"{gene}, {found.models[m].label}: {per_model[m][gene]:.3f}"
                sheet.mark(shape, x.at(per_model[m][gene]), y, 4, colour, tip)
    for k, m in enumerate(named):
        at = (left + (WIDE - left) / 2 * (k % 2), plot + BOTTOM + 8 + 16 * (k // 2))
        colour, shape = look(found, m)
        sheet.mark(shape, *at, 4, colour)
        sheet.text(at[0] + 9, at[1] + 4, found.models[m].label, 10.5, colour="soft")
    return sheet


def _per_gene(details: Mapping[str, Any]) -> dict[str, float]:
    """Gene -> mean over the folds that have a correlation; {} where the record is of something else."""
    folds, names = details.get("pearson_per_gene"), details.get("genes")
    if not isinstance(folds, list) or not isinstance(names, list):
        return {}
    out = {}
    for j, name in enumerate(names):
        values = [f[j] for f in folds if isinstance(f, list) and j < len(f) and isinstance(f[j], (int, float))]
        if values:
            out[str(name)] = sum(values) / len(values)
    return out


def ruler(sheet: Sheet, x: Scale, top: float, floor: float, title: str) -> None:
    """The grid, ticks and title of a figure that has a horizontal axis only."""
    for tick in x.ticks():
        sheet.line([(x.at(tick), top), (x.at(tick), floor)], "grid")
        sheet.text(x.at(tick), floor + 16, short(tick), 11, "middle", "soft")
    sheet.text((x.first + x.last) / 2, floor + 36, title, 12, "middle")
