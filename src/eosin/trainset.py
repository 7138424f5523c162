"""What a student is trained on: tiles of slides or of a folder, drawn with a seed, in an order that any process can tell."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from .cards import DatasetCard
from .dataset import IMAGES, Dataset
from .errors import DataError
from .extractor import fit
from .folders import Array
from .index import Index
from .manifest import Manifest
from .slides import SUFFIXES, slide_tiles, slides_at
from .table import Table
from .tiles import BrokenTile, Reader

AHEAD = 3  # batches read before they are asked for


class Pictures(Dataset):
    """Every image below a folder is a tile; the folder it lies in stands for its slide."""

    kind = "pictures"

    def items(self, root: Path) -> Table:
        found = sorted(p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in IMAGES and p.is_file())
        names = [p.as_posix() for p in found if not any(part.startswith((".", "__MACOSX")) for part in p.parts)]
        if not names:
            raise DataError(f"There is no image below {root}. Known endings: {', '.join(IMAGES)}.")
        folders = tuple(sorted({str(root / n.rpartition("/")[0]) for n in names}))
        slide = [n.rpartition("/")[0] or "." for n in names]
        columns = {"id": np.array(names), "source": np.array(names), "slide": np.array(slide)}
        return Table(columns, watched=(str(root), *folders))


class SlideFolder(Dataset):
    """Every slide below a folder, cut into tiles; one that cannot be read is left out and named."""

    kind = "slide-folder"

    def items(self, root: Path) -> Table:
        paths = list(slides_at(root))
        names = [p.relative_to(root).as_posix() for p in paths]
        if not names:
            raise DataError(f"There is no slide below {root}. Known endings: {', '.join(SUFFIXES)}.")
        return Table(
            {"id": np.array(names), "source": np.array(names)},
            watched=(str(root), *sorted({str(p.parent) for p in paths})),
        )

    def tiles(self, root: Path, items: Table) -> Table:
        return slide_tiles(root, items, {**self.card.options, "unreadable": "skip"})


def dataset_of(folder: Path, slides: bool, options: Mapping[str, Any]) -> Dataset:
    """The dataset of `--slides DIR` (cut by these tiling options) or `--tiles DIR`: tiles.csv, an HDF5 file, or images."""
    if not folder.exists():
        raise DataError(f"There is nothing at {folder}. Name a folder of {'slides' if slides else 'tiles'}.")
    if folder.is_file():
        return _of_file(folder)
    card = DatasetCard("training-tiles", root=str(folder.absolute()), options=dict(options) if slides else {})
    if slides:
        return SlideFolder(card)
    if (folder / "tiles.csv").is_file():
        return Manifest(card)
    if folder.is_dir() and not any(p.suffix.lower() in IMAGES for p in folder.rglob("*")):
        if not any(p.suffix.lower() in (".h5", ".hdf5") for p in folder.iterdir()):
            raise DataError(f"{folder} holds no image, no tiles.csv and no .h5 file. Name a folder of tiles.")
        return Array(card)
    return Pictures(card)


def _of_file(path: Path) -> Dataset:
    """The tiles that a table lists, or that an HDF5 file holds."""
    card = DatasetCard("training-tiles", root=str(path.parent.absolute()), table=path.name)
    if path.suffix.lower() == ".csv":
        return Manifest(card)
    if path.suffix.lower() in (".h5", ".hdf5"):
        return Array(card)
    raise DataError(f"{path} is one file, and neither a table nor HDF5. Name the folder that it lies in.")


@dataclass(frozen=True)
class Choice:
    """Which tiles are used, of how many.

    Attributes:
        rows: row numbers of the table, sorted. held_out: rows that are only looked at, never trained on.
        slides: how many slides the rows come from. excluded: how many slides were on the exclusion list, wholly or in part.
        idle: lines of that list that are of nothing here.
    """

    rows: np.ndarray
    held_out: np.ndarray
    slides: int
    excluded: int
    idle: tuple[str, ...] = ()


def choose(table: Table, n_slides: int, n_tiles: int, held_out: int, exclude: Collection[str], seed: int) -> Choice:
    """Tiles of N slides, M of each, drawn with a seed.

    Args:
        n_slides, n_tiles: 0 for all. held_out: how many tiles to keep for looking at progress: those of whole patients
            where there are ten or more (where they are not known, a slide counts as one), else of whole slides, else any.
        exclude: slides or patients that must not be trained on: a tile is left out when the name of its slide or file, with
            or without folders, begins with one of these (or with one without its ending), or its group is one; case does not count.

    Raises:
        DataError: nothing is left.
    """
    rng = np.random.default_rng(seed)
    slide = np.where(table["slide"] != "", table["slide"], table["source"])
    names, code = np.unique(slide, return_inverse=True)
    barred, idle = _barred(table, slide, exclude)
    kept = np.bincount(code[~barred], minlength=len(names))
    free = rng.permutation(np.flatnonzero(kept))
    if not len(free):
        raise DataError(f"All {len(names)} slides are on the exclusion list. Train on others.")
    aside = _aside(np.where(table["group"] != "", table["group"], slide), code, free, barred, held_out)
    if not aside.any():  # fewer than ten patients
        aside = _aside(code, code, free, barred, held_out)
    usable = ~barred & ~aside
    free = free[np.isin(free, code[usable])][: n_slides or None]
    rows = np.flatnonzero(np.isin(code, free) & usable)
    if n_tiles:
        order = rng.permutation(rows)
        place = np.argsort(np.argsort(code[order], kind="stable"), kind="stable")
        first = np.searchsorted(np.sort(code[order]), code[order])
        rows = np.sort(order[place - first < n_tiles])
    held = np.flatnonzero(aside)
    if held_out and not len(held):
        rows = rng.permutation(rows)
        n = min(held_out, len(rows) // 5)
        held, rows = rows[:n], np.sort(rows[n:])
    out = len(np.unique(code[barred]))
    return Choice(rows, np.sort(rng.permutation(held)[:held_out]), len(np.unique(code[rows])), out, idle)


def _aside(patient: np.ndarray, slide: np.ndarray, order: np.ndarray, barred: np.ndarray, n: int) -> np.ndarray:
    """(rows,) whether a tile is of a patient who is held out: the last in the slides' order, until n tiles are together or
    a fifth of the patients; nobody where they are fewer than ten."""
    if not n:
        return np.zeros(len(patient), bool)
    code = np.unique(patient, return_inverse=True)[1]
    place = np.empty(slide.max() + 1, int)
    place[order] = np.arange(len(order))
    rows = np.flatnonzero(~barred)
    rows = rows[np.argsort(place[slide[rows]], kind="stable")]
    people, first = np.unique(code[rows], return_index=True)
    people = people[np.argsort(first)][::-1]
    if len(people) < 10:
        return np.zeros(len(patient), bool)
    count = np.bincount(code[rows])
    last = int(np.searchsorted(np.cumsum(count[people]), n)) + 1
    return np.isin(code, people[: min(last, max(1, len(people) // 5))]) & ~barred


def _barred(table: Table, slide: np.ndarray, exclude: Collection[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """(rows,) whether a tile is of something excluded, and the lines that are of nothing here."""
    lines = {text.strip().lower(): text.strip() for text in exclude if text.strip()}
    wanted = tuple({*lines, *(line.removesuffix(PurePath(line).suffix) for line in lines if line.endswith(SUFFIXES))})
    if not lines:
        return np.zeros(len(table), bool), ()
    alike = np.zeros(len(table), np.int64)  # tiles of one slide, file and group are judged once
    for column in (slide, table["source"], table["group"]):
        names, code = np.unique(column, return_inverse=True)
        alike = np.unique(alike * len(names) + code, return_inverse=True)[1]
    _, first, which = np.unique(alike, return_index=True, return_inverse=True)
    barred, met = np.zeros(len(first), bool), set()
    parts = [np.char.lower(v[first]) for v in (slide, table["source"], table["group"])]
    for row, (of, source, group) in enumerate(zip(*(p.tolist() for p in parts), strict=True)):
        for name in {of, PurePath(of).name, PurePath(source).name}:
            if name.startswith(wanted):
                barred[row] = True
                met |= {w for w in wanted if name.startswith(w)}
        if group in lines:
            barred[row] = True
            met.add(group)
    stem = {line: line.removesuffix(PurePath(line).suffix) if line.endswith(SUFFIXES) else line for line in lines}
    return barred[which], tuple(text for line, text in lines.items() if not {line, stem[line]} & met)


class Order:
    """Which row stands where in an endless sequence: one permutation an epoch, each from (seed, epoch) alone."""

    def __init__(self, rows: np.ndarray, seed: int) -> None:
        self.rows, self.seed, self.epoch, self.now = rows, seed, -1, rows

    def __call__(self, start: int, stop: int) -> list[int]:
        """Row numbers of positions start … stop - 1."""
        out: list[int] = []
        while start < stop:
            epoch, at = divmod(start, len(self.rows))
            if epoch != self.epoch:
                self.epoch, self.now = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.rows)
            end = min(len(self.rows), at + stop - start)
            out += self.now[at:end].tolist()
            start += end - at
        return out


class Batches:
    """Decoded tiles, read by threads a few batches ahead.

    Args:
        side: tiles become uint8 (side, side, 3). A smaller one is enlarged by its shorter side, of a larger one a window is
            drawn, so that the scale stays.
        rank, world: this process's share is a contiguous piece of each joint batch.
    """

    def __init__(
        self,
        index: Index,
        rows: np.ndarray,
        batch: int,
        side: int,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if len(rows) < batch:
            raise DataError(
                f"{len(rows)} tiles are fewer than a batch of {batch}. Give more tiles, or a smaller --batch-size."
            )
        self.table, self.reader = index.table, Reader(index.root, index.table)
        self.order, self.batch, self.side, self.seed = Order(rows, seed), batch, side, seed
        self.share = slice(rank * batch // world, (rank + 1) * batch // world)
        self.pool = ThreadPoolExecutor(workers or min(16, max(2, os.cpu_count() or 2)))
        self.resized = self.cut = 0
        self.broken: dict[str, str] = {}

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def steps(self, start: int, stop: int) -> Iterator[tuple[list[int], np.ndarray]]:
        """(row numbers, uint8 (n, side, side, 3)) of this process's share of each step.

        Raises:
            DataError: more than half of a batch cannot be read.
        """
        queue: deque[tuple[list[int], list[Future[Any]]]] = deque()
        for step in range(start, stop + AHEAD):
            if step < stop:
                first = step * self.batch
                rows = self.order(first, first + self.batch)[self.share]
                begin = first + self.share.start
                queue.append((rows, [self.pool.submit(self.read, r, begin + i) for i, r in enumerate(rows)]))
            if queue and (step >= start + AHEAD - 1 or step >= stop):
                rows, futures = queue.popleft()
                yield rows, self._whole([f.result() for f in futures])

    def _whole(self, images: list[Any]) -> np.ndarray:
        """A batch in which a tile that cannot be read is replaced by the next that can; it is named and counted."""
        good = [i for i in images if not isinstance(i, BrokenTile)]
        for bad in (i for i in images if isinstance(i, BrokenTile)):
            self.broken.setdefault(bad.tile, bad.why)
        if len(good) * 2 < len(images):
            raise DataError(
                f"{len(images) - len(good)} of {len(images)} tiles of a batch cannot be read, such as {next(iter(self.broken.items()))}. "
                "Check the files; --resume goes on from the last checkpoint."
            )
        spare = iter(good * 2)
        return np.stack([next(spare) if isinstance(i, BrokenTile) else i for i in images])

    def read(self, row: int, position: int) -> np.ndarray | BrokenTile:
        """One tile as (side, side, 3), or why it cannot be read."""
        try:
            image = self.reader.read(row)
        except BrokenTile as broken:
            return broken
        w, h = image.size
        if min(w, h) < self.side:
            self.resized += 1
            return np.asarray(fit(image, self.side, self.side, "bicubic"))
        self.cut += (w, h) != (self.side, self.side)
        rng = np.random.default_rng([self.seed, position])
        x, y = int(rng.integers(0, w - self.side + 1)), int(rng.integers(0, h - self.side + 1))
        return np.asarray(image.crop((x, y, x + self.side, y + self.side)))
