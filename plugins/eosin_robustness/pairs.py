"""Every pair of slides of one model, each computed once: what is kept of an earlier run is not computed again."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np

from eosin.arrays import blocks
from eosin.errors import DataError

from .dense import Dense, Exact, Side, engine
from .slides import Registered, Slide

KEPT = "plism-pairs.jsonl"


def compute(emb: Any, found: Registered, ks: Sequence[int], precision: str) -> dict[str, np.ndarray]:
    """{"a": (pairs,) names, "b": …, "cosine": (pairs,), "top1": …} of all pairs of slides, in the order of their names.

    Raises:
        DataError: embeddings that are zero, NaN or Inf, naming slide and tiles.
    """
    pairs = list(combinations(found.slides, 2))
    kept = Kept(emb.scratch, {"precision": precision, "ks": list(ks), "n": found.n, "tiles": found.tiles})
    todo = [(a, b) for a, b in pairs if (a.name, b.name) not in kept.values]
    if todo:
        _compute(emb, todo, engine(ks, precision, len(todo) * found.n**2 * emb.X.shape[1]), kept)
    values = [kept.values[a.name, b.name] for a, b in pairs]
    columns = {name: np.array([v[name] for v in values]) for name in ("cosine", *(f"top{k}" for k in ks))}
    return {"a": np.array([a.name for a, _ in pairs]), "b": np.array([b.name for _, b in pairs]), **columns}


def _compute(emb: Any, todo: list[tuple[Slide, Slide]], how: Exact | Dense, kept: Kept) -> None:
    """Each slide's own block once, each block across once; as many slides are held, and pairs computed at once, as there
    is room for."""
    n, d = len(todo[0][0].rows), emb.X.shape[1]
    room, together = how.room((n, d))
    held: OrderedDict[str, Any] = OrderedDict()
    within: dict[str, Any] = {}

    def side(slide: Slide) -> Side:
        if slide.name not in held:
            while len(held) >= room:
                held.popitem(last=False)
            X = emb.X[slide.rows]
            if slide.name not in within:
                check(X, emb.id[slide.rows], slide.name)
            held[slide.name] = how.slide(X)
        held.move_to_end(slide.name)
        if slide.name not in within:
            within[slide.name] = how.within(held[slide.name])
        return held[slide.name], within[slide.name]

    for _, of in groupby(todo, key=lambda pair: pair[0].name):
        first = list(of)
        a, others = first[0][0], [b for _, b in first]
        for part in blocks(len(others), together):
            found = how.pairs(side(a), [side(b) for b in others[part]])
            for b, values in zip(others[part], found, strict=True):
                kept.add((a.name, b.name), values)


def check(X: np.ndarray, ids: np.ndarray, slide: str) -> None:
    """DataError naming the tiles of a slide whose embeddings have no direction."""
    for problem, bad in (
        ("NaN or Inf", lambda x: ~np.isfinite(x).all(1)),
        ("all zeros, which has no direction,", lambda x: ~x.any(1)),
    ):
        found = np.concatenate([np.flatnonzero(bad(X[part])) + part.start for part in blocks(len(X))])
        if len(found):
            tiles = ", ".join(map(str, ids[found[:5]]))
            raise DataError(
                f"Slide {slide}: {len(found)} embeddings are {problem} such as those of {tiles}. Embed these tiles again."
            )


class Kept:
    """Pairs that are known, by the names of their slides; with a folder, one line of JSON a pair, added as it is made."""

    def __init__(self, folder: Path | None, key: dict[str, Any]) -> None:
        self.key, self.values = key, dict[tuple[str, str], dict[str, float]]()
        self.path = None if folder is None else Path(folder) / KEPT
        if self.path is None or not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                if row["key"] == key:
                    self.values[tuple(row["slides"])] = row["values"]
            except (ValueError, KeyError, TypeError):
                continue  # a killed run cut it short

    def add(self, slides: tuple[str, str], values: dict[str, float]) -> None:
        self.values[slides] = values
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"key": self.key, "slides": slides, "values": values})
            with open(self.path, "ab") as handle:  # one write a line: two runs at once do not mix theirs
                handle.write(f"\n{line}\n".encode())  # a line that was cut short stays alone
