"""PLISM as Owkin released it: one specimen under 13 stainings and 7 scanners, 16,278 registered tiles of each slide."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import eosin
from eosin.cards import anchored
from eosin.dataset import files_below, folders_below, indent
from eosin.errors import CardError, DataError, MissingError

SLIDE = re.compile(r"(?P<stain>[A-Z]+)_(?P<scanner>[A-Z0-9]+)_to_GMH_S60(\.tif)?")
TILE = re.compile(r"[^_]+_(\d+)_(\d+)_(\d+)")  # level, x, y of the deep zoom
STAININGS = ("GIV", "GIVH", "GM", "GMH", "GV", "GVH", "HR", "HRH", "KR", "KRH", "LM", "LMH", "MY")
SCANNERS = ("AT2", "GT450", "P", "S210", "S360", "S60", "SQ")
TILES = 16_278
DEFAULTS = {"stainings": "all", "scanners": "all", "tiles": "all"}


@dataclass
class Part:
    """One slide: its names, and of each tile the id, the file, and where in the file."""

    stain: str
    scanner: str
    tile: list[str]
    source: Any
    key: Any
    row: Any

    @property
    def name(self) -> str:
        return f"{self.stain}_{self.scanner}"


class Plism(eosin.Dataset):
    """`owkin/plism-dataset`: `<staining>_<scanner>_to_GMH_S60.tif.h5`, one array a tile; or `owkin/plism-dataset-tiles`:
    parquet shards of PNGs (needs the extra `parquet`). Each slide's tiles are sorted by x, then y: row i is one place.

    Options: `stainings` and `scanners`, names or all; `tiles`: all, a number (so many, evenly spaced in that order), or a
    file: .npy of row numbers in that order, as plism-benchmark's `tiles_subset_8139.npy`, or text, a tile id a line.
    """

    kind = "plism"

    def items(self, root: Path) -> eosin.Table:
        o = self._options()
        folder, suffix = self._find(root)
        read = self._arrays if suffix == ".h5" else self._shards
        warnings = []
        other = [f for f in _below(root) if suffix == ".h5" and any(files_below(f, (".parquet",)))]
        if other:
            warnings.append(f"{other[0].name} holds parquet files too; they were passed over")
        parts = sorted(read(root, folder, o), key=lambda p: p.name)
        seen: dict[str, Part] = {}
        for part in parts:
            if seen.setdefault(part.name, part) is not part:
                raise self._fail(f"slide {part.name} is there twice in {folder}. Remove one file.")
        for what, there in (("stainings", {p.stain for p in parts}), ("scanners", {p.scanner for p in parts})):
            absent = [n for n in _names(o[what]) if n not in there]
            if absent and parts:
                raise CardError(
                    f"dataset {self.name}: {what} {', '.join(absent)} are not in {folder}, which has {', '.join(sorted(there))} of "
                    "those that were asked for. Correct the card."
                )
        if not parts:
            raise self._fail(
                f"{folder} holds no slide of the stainings and scanners in the card's options. Check them."
            )
        everything = sorted({t for p in parts for t in p.tile}, key=self._place)
        chosen = self._chosen(o["tiles"], everything, root)
        order = {t: i for i, t in enumerate(chosen)}
        warnings += list(_remarks(parts, everything))
        columns: dict[str, list[np.ndarray]] = {}
        for part in parts:
            numbers = np.array([order.get(t, -1) for t in part.tile])
            kept = np.flatnonzero(numbers >= 0)
            kept = kept[np.argsort(numbers[kept], kind="stable")]
            for name, values in _columns(part, kept).items():
                columns.setdefault(name, []).append(values)
        table = eosin.Table({name: np.concatenate(values) for name, values in columns.items()}, warnings=warnings)
        if self.card.mpp:
            table.columns["mpp"] = np.full(len(table), self.card.mpp)
        counts = {"slides": len(parts), "tiles_per_slide": len(chosen)}
        counts |= {"stainings": len({p.stain for p in parts}), "scanners": len({p.scanner for p in parts})}
        table.counts, table.watched = counts, tuple(str(f) for f in (root, folder))
        return table

    def _options(self) -> dict[str, Any]:
        wrong = [k for k in self.card.options if k not in DEFAULTS]
        if wrong:
            raise CardError(f"dataset {self.name}: no option {', '.join(wrong)}. Its options: {', '.join(DEFAULTS)}.")
        return {**DEFAULTS, **self.card.options}

    def _find(self, root: Path) -> tuple[Path, str]:
        """The nearest folder with slides, arrays rather than shards, and which of the two they are."""
        if not root.is_dir():
            raise self._fail(f"{root} is a file. Name the folder that holds the slides.")
        for suffix in (".h5", ".parquet"):
            for folder in _below(root):
                if any(files_below(folder, (suffix,))):
                    return folder, suffix
        raise self._fail(
            f"{root} holds neither .h5 nor .parquet files. Expected there:\n{indent(self.card.tree)}\n"
            f"`bench data where {self.name}` says how to get it."
        )

    def _arrays(self, root: Path, folder: Path, o: dict[str, Any]) -> Iterator[Part]:
        """Slides of HDF5 files."""
        import h5py

        for path in files_below(folder, (".h5",)):
            stain, scanner = self._names(path.name.removesuffix(".h5"), str(path))
            if not _wanted(stain, o["stainings"]) or not _wanted(scanner, o["scanners"]):
                continue
            try:
                with h5py.File(path, "r") as file:
                    keys = list(file)
            except OSError as error:
                raise self._fail(f"{path} is no HDF5 file that can be read ({error}). Download it again.") from error
            if not keys:
                raise self._fail(f"{path} holds no tiles. Download it again.")
            source = path.relative_to(root).as_posix()
            yield Part(stain, scanner, keys, np.full(len(keys), source), np.array(keys), np.full(len(keys), -1))

    def _shards(self, root: Path, folder: Path, o: dict[str, Any]) -> Iterator[Part]:
        """Slides of parquet files, each in one shard or several."""
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise MissingError(
                f"{self.name}: {folder} holds parquet files. Next: pip install 'eosin[parquet]'"
            ) from None
        found: dict[str, list[tuple[str, str, int]]] = {}
        for path in files_below(folder, (".parquet",)):
            try:
                table = parquet.read_table(path, columns=["slide_id", "tile_id"])
            except Exception as error:  # pyarrow's errors are its own
                raise self._fail(f"{path} cannot be read ({error}). Download it again.") from error
            source = path.relative_to(root).as_posix()
            slides, tiles = (table.column(c).to_pylist() for c in ("slide_id", "tile_id"))
            for row, (slide, tile) in enumerate(zip(slides, tiles, strict=True)):
                found.setdefault(slide, []).append((tile, source, row))
        for slide, cells in found.items():
            stain, scanner = self._names(slide, f"{folder}, slide_id {slide}")
            if _wanted(stain, o["stainings"]) and _wanted(scanner, o["scanners"]):
                tile, sources, rows = zip(*cells, strict=True)
                key = np.full(len(tile), "png")
                yield Part(stain, scanner, list(tile), np.array(sources), key, np.array(rows))

    def _names(self, slide: str, where: str) -> tuple[str, str]:
        found = SLIDE.fullmatch(slide)
        if found is None:
            raise self._fail(
                f"{where} does not match <staining>_<scanner>_to_GMH_S60.tif. Move it away, or copy it again."
            )
        return found["stain"], found["scanner"]

    def _place(self, tile: str) -> tuple[int, int, int]:
        found = TILE.fullmatch(tile)
        if found is None:
            raise self._fail(f"tile {tile!r} does not match tile_<level>_<x>_<y>. Download its slide again.")
        level, x, y = map(int, found.groups())
        return x, y, level

    def _chosen(self, given: Any, everything: list[str], root: Path) -> list[str]:
        """Tiles in order: all, so many evenly spaced, or those that a file names."""
        n = len(everything)
        if given == "all":
            return everything
        if isinstance(given, int) and not isinstance(given, bool):
            if not 0 < given <= n:
                raise CardError(
                    f"dataset {self.name}: tiles={given}, and there are {n:,} a slide. Give 1 to {n:,}, or all."
                )
            return [everything[i] for i in np.linspace(0, n, given, endpoint=False).astype(int)]
        places = [root / str(given), Path(anchored(str(given), Path(self.card.base)))]
        path = next((p for p in places if p.is_file()), None)
        if path is None:
            raise CardError(
                f"dataset {self.name}: tiles={given} is neither all, nor a number, nor a file in {root}. Correct the card."
            )
        if path.suffix == ".npy":
            rows = self._numbers(path, n)
            if not len(rows) or rows[0] < 0 or rows[-1] >= n:
                raise self._fail(
                    f"{path} has row numbers outside 0 … {n - 1}. They count all {TILES:,} tiles of a slide."
                )
            return [everything[i] for i in rows]
        wanted = set(path.read_text(encoding="utf-8").split())
        absent = wanted - set(everything)
        if absent or not wanted:
            raise self._fail(
                f"{path}: {len(absent)} of {len(wanted)} tiles are on no slide, such as {min(absent, default='')}."
            )
        return [t for t in everything if t in wanted]

    def _numbers(self, path: Path, n: int) -> np.ndarray:
        """The row numbers of a .npy file, or those that its mask of n booleans takes."""
        try:
            given = np.load(path, allow_pickle=False)
        except Exception as error:  # numpy speaks of pickles whatever is wrong
            raise self._fail(f"{path} is no .npy file of plain numbers. Make it again with numpy.save.") from error
        if given.dtype == bool and given.shape == (n,):
            return np.flatnonzero(given)
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise self._fail(
                f"{path} holds {given.dtype} of shape {given.shape}, not row numbers, nor {n} booleans. Make it again."
            )
        return np.unique(given.astype(np.int64))

    def _fail(self, text: str) -> DataError:
        return DataError(f"{self.name}: {text}")


def _below(root: Path) -> Iterator[Path]:
    """The folder and those two levels below, nearest first; hidden ones (caches of downloads) are passed over."""
    level = [root]
    for _ in range(3):
        yield from level
        level = [f for folder in level for f in folders_below(folder)]


def _names(given: Any) -> list[str]:
    """Those that a card asks for; none where it asks for all."""
    if given == "all":
        return []
    return [str(n).strip() for n in (given.split(",") if isinstance(given, str) else given)]


def _wanted(name: str, given: Any) -> bool:
    return given == "all" or name in _names(given)


def _columns(part: Part, kept: np.ndarray) -> dict[str, np.ndarray]:
    tile = np.array(part.tile)[kept]
    return {
        "id": np.char.add(f"{part.name}/", tile),
        "source": part.source[kept],
        "key": part.key[kept],
        "row": part.row[kept],
        "slide": np.full(len(kept), part.name),
        "stain": np.full(len(kept), part.stain),
        "scanner": np.full(len(kept), part.scanner),
        "tile": tile,
    }


def _remarks(parts: Sequence[Part], everything: list[str]) -> Iterator[str]:
    """What differs from the release, and was accepted."""
    if len(everything) != TILES:
        yield f"{len(everything):,} tiles a slide of the official {TILES:,}: a subset or a partial download"
    whole = len(STAININGS) * len(SCANNERS)
    if len(parts) < whole:
        yield f"{len(parts)} slides of the official {whole}: a subset or a partial download"
    short = [f"{p.name} ({len(everything) - len(set(p.tile)):,})" for p in parts if len(set(p.tile)) < len(everything)]
    if short:
        yield f"slides that lack tiles of others: {', '.join(short[:5])}; the PLISM protocols need them"
    for what, known, names in (
        ("staining", STAININGS, {p.stain for p in parts}),
        ("scanner", SCANNERS, {p.scanner for p in parts}),
    ):
        odd = sorted(names - set(known))
        if odd:
            yield f"{what} {', '.join(odd)} is none of PLISM's ({', '.join(known)})"
