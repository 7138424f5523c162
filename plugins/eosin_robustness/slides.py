"""Registered slides: which rows of the embeddings are the same places, in the same order, on every slide."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eosin.errors import DataError, UsageError


@dataclass(frozen=True)
class Slide:
    """One section under one scanner; row i of each slide's `rows` is the same place."""

    name: str
    stain: str
    scanner: str
    rows: np.ndarray


@dataclass(frozen=True)
class Registered:
    """Slides by name, tiles in the order of the dataset; `tiles` tells orders of tiles apart."""

    slides: list[Slide]
    n: int
    of: int
    tiles: str
    by_tile: bool


def registered(emb: Any, stainings: Any, scanners: Any, n_tiles: int, required: str = "") -> Registered:
    """The slides of some stainings and scanners, their rows matched by tile.

    Args:
        emb: has `slide`, or the columns `stain` and `scanner`, and the column `tile` (the registered id; without it the
            rows of each slide are taken to be in one order). A slide called A_B_… has staining A and scanner B.
        stainings, scanners: names, as a list or as text with commas; "all"; None: all of them.
        n_tiles: the first so many tiles in the dataset's order; 0: all.
        required: why stainings must be named, where they must.

    Raises:
        UsageError: names that are not there, all of those that are listed; too few tiles.
        DataError: no slides, fewer than two, slides that lack tiles (named), a tile twice on a slide.
    """
    if n_tiles < 0:
        raise UsageError(f"n_tiles={n_tiles}: give the number of tiles of each slide, or 0 for all.")
    name, stain, scanner = _slides(emb)
    names, first, code = np.unique(name, return_index=True, return_inverse=True)
    of = list(zip(names.tolist(), stain[first].tolist(), scanner[first].tolist(), strict=True))
    for column, what in ((stain, "staining"), (scanner, "scanner")):
        mixed = np.unique(code[column != column[first][code]])
        if len(mixed):
            raise DataError(f"Slide {names[mixed[0]]} has several {what}s. Give each slide a name of its own.")
    if required and stainings is None:
        raise UsageError(f"{required} Here are: {', '.join(sorted({s for _, s, _ in of}))}.")
    wanted = _chosen("stainings", stainings, {s for _, s, _ in of})
    seen_by = _chosen("scanners", scanners, {s for _, _, s in of})
    kept = [i for i, (_, s, c) in enumerate(of) if s in wanted and c in seen_by]
    if len(kept) < 2:
        raise DataError(f"{len(kept)} slide(s) to compare: pairs need two. Name more stainings or scanners.")
    rows = {i: np.flatnonzero(code == i) for i in kept}
    tile = _column(emb.table, "tile")
    if tile is None:
        sizes = {of[i][0]: len(rows[i]) for i in kept}
        if len(set(sizes.values())) > 1:
            raise DataError(
                f"Slides have different numbers of tiles ({_few([f'{k} {v}' for k, v in sizes.items()])}) and there is no "
                "column `tile` that says which belong together. Add it."
            )
        everything = list(map(str, range(len(rows[kept[0]]))))
    else:
        everything = _match(rows, tile, {i: of[i][0] for i in kept})
    n = min(n_tiles or len(everything), len(everything))
    digest = hashlib.blake2b("\n".join(everything[:n]).encode(), digest_size=8).hexdigest()
    return Registered([Slide(*of[i], rows[i][:n]) for i in kept], n, len(everything), digest, tile is not None)


def _slides(emb: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(slide, staining, scanner) of each row."""
    stain, scanner = _column(emb.table, "stain"), _column(emb.table, "scanner")
    slide = emb.slide if emb.slide is not None else _column(emb.table, "slide")
    if slide is None:
        if stain is None:
            raise DataError("Nothing says which slide a row is of. Give `slide`, or the columns `stain` and `scanner`.")
        slide = stain if scanner is None else np.char.add(np.char.add(stain, "_"), scanner)
    slide = np.asarray(slide).astype(str)
    if (slide == "").any():
        raise DataError(f"{int((slide == '').sum())} rows have no slide. Give every row one, or take them out.")
    if stain is None:
        names, code = np.unique(slide, return_inverse=True)
        parts = [n.split("_") for n in names.tolist()]
        odd = [n for n, p in zip(names.tolist(), parts, strict=True) if len(p) < 2]
        if odd:
            raise DataError(
                f"There is no column `stain`, and the name {odd[0]} is not <staining>_<scanner>_…. Add `stain` and `scanner`."
            )
        stain = np.array([p[0] for p in parts])[code]
        scanner = np.array([p[1] for p in parts])[code] if scanner is None else scanner
    return slide, stain, np.full(len(slide), "") if scanner is None else scanner


def _column(table: Mapping[str, Any], name: str) -> np.ndarray | None:
    values = np.asarray(table[name]).astype(str) if name in table else None
    return None if values is None or (values == "").all() else values


def _chosen(what: str, given: Any, present: set[str]) -> set[str]:
    """The names that are asked for; UsageError for one that is not there."""
    if given is None or given == "all":
        return present
    names: Sequence[str] = given.split(",") if isinstance(given, str) else given
    names = [str(n).strip() for n in names]
    absent = [n for n in names if n not in present]
    if absent or not names:
        raise UsageError(
            f"{what}={','.join(names)}: {', '.join(absent) or 'none'} not in these data. Here are: {', '.join(sorted(present))}."
        )
    return set(names)


def _match(rows: dict[int, np.ndarray], tile: np.ndarray, names: dict[int, str]) -> list[str]:
    """Sort the rows of each slide by tile, in place; the tiles, in the order in which the first slide has them."""
    own = {i: tile[r].tolist() for i, r in rows.items()}
    order: dict[str, int] = {}
    for i, tiles in own.items():
        if len(set(tiles)) < len(tiles):
            twice = next(t for t in tiles if tiles.count(t) > 1)
            raise DataError(f"Slide {names[i]} has tile {twice} more than once. Correct the column `tile`.")
        for t in tiles:
            order.setdefault(t, len(order))
    lacking = []
    for i, tiles in own.items():
        absent = order.keys() - set(tiles)
        if absent:
            example = min(absent, key=order.__getitem__)
            lacking.append(f"{names[i]} ({len(absent):,}, such as {example or 'the empty name'})")
        rows[i] = rows[i][np.argsort([order[t] for t in tiles], kind="stable")]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(own)} slides lack tiles that others have: {_few(lacking)}. Complete the download and "
            "embed again, or leave these slides out (stainings=, scanners=)."
        )
    return list(order)


def _few(texts: list[str]) -> str:
    return ", ".join(texts[:10]) + (f" and {len(texts) - 10} more" if len(texts) > 10 else "")
