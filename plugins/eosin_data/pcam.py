"""PatchCamelyon: 96 px patches of lymph nodes as rows of HDF5 arrays, the centre with tumour or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import eosin
from eosin.table import read_csv

from .official import Tree

STEM = "camelyonpatch_level_2_split"
SPLITS = {"train": "train", "valid": "val", "test": "test"}
COUNTS = {"train": 262_144, "valid": 32_768, "test": 32_768}
MD5 = {
    "train": "0781386bf6c2fb62d58ff18891466aca",
    "valid": "94d8aacc249253159ce2a2e78a86e658",
    "test": "11ed647efe9fe457a4eb45df1dba19ba",
}
"""Of the unpacked y files (the table in the authors' README has those of valid and test the wrong way round)."""
CLASSES = ("normal", "tumor")


class Pcam(eosin.Dataset):
    """`camelyonpatch_level_2_split_<train|valid|test>_<x|y>.h5`, unpacked; valid is called val here.

    Pixels are read row by row from array x. Where `…_meta.csv` is there its column `wsi` is slide and group: the slides
    are those of Camelyon16, and the 54 of valid are the validation slides there.
    """

    kind = "pcam"

    def downloads(self) -> list[tuple[str, str, str]]:
        """Arrays packed by gzip, whose own checksums say whether they arrived whole, and the tables of slides."""
        names = [f"{STEM}_{split}_{what}" for split in SPLITS for what in ("x.h5.gz", "y.h5.gz", "meta.csv")]
        return [(f"https://zenodo.org/records/2546921/files/{name}?download=1", name, "") for name in names]

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        top = tree.nearest(_is_top) or tree.find(_is_top)
        parts = []
        for split in SPLITS:
            x, y = (top / f"{STEM}_{split}_{xy}.h5" for xy in "xy")
            packed = [f for f in (x, y) if not f.is_file() and f.with_name(f"{f.name}.gz").is_file()]
            if packed:
                raise tree.fail(
                    f"{packed[0]}.gz is packed, and rows are read from {packed[0].name}. Run: gunzip {top}/*.gz"
                )
            if x.is_file() != y.is_file():
                there, lacking = (x, y) if x.is_file() else (y, x)
                raise tree.fail(f"{there.name} is there and {lacking.name} is not. Download both into {top}.")
            if x.is_file():
                parts.append(_part(tree, split, x, y))
            else:
                tree.warnings.append(f"there is no {x.name}: a partial download")
        columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        return tree.finish(eosin.Table(columns, CLASSES))


def _is_top(folder: Path) -> bool:
    return any((folder / f"{STEM}_{s}_{xy}.h5{gz}").is_file() for s in SPLITS for xy in "xy" for gz in ("", ".gz"))


def _part(tree: Tree, split: str, x: Path, y: Path) -> dict[str, np.ndarray]:
    """The columns of one pair of files."""
    pixels, _ = _array(tree, x, "x", load=False)
    if len(pixels) != 4 or pixels[3] != 3:
        raise tree.fail(f"{x}: array x has shape {pixels}, not (n, height, width, 3). Download it again.")
    shape, label = _array(tree, y, "y", load=True)
    n = pixels[0]
    if label.size != n:
        raise tree.fail(f"{x.name} has {n:,} images and {y.name} labels of shape {shape}. Download both again.")
    label = label.reshape(n)
    if not np.isin(label, (0, 1)).all():
        raise tree.fail(f"{y} holds other labels than 0 and 1. Download it again.")
    tree.compare(n, COUNTS[split], f"patches of {x.name}")
    if n == COUNTS[split]:
        tree.compare_md5(y, MD5[split])
    tree.watch(y)
    slides = _slides(tree, x.with_name(f"{STEM}_{split}_meta.csv"), n)
    return {
        "id": np.char.add(f"{SPLITS[split]}#", np.arange(n).astype(str)),
        "source": np.full(n, tree.relative(x)),
        "key": np.full(n, "x"),
        "row": np.arange(n),
        "label": label.astype(np.int64),
        "split": np.full(n, SPLITS[split]),
        "slide": slides,
        "group": slides,
    }


def _array(tree: Tree, path: Path, key: str, load: bool) -> tuple[tuple[int, ...], Any]:
    """Shape of an array of bytes in an HDF5 file, and its values where they are few."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if key not in file:
                raise tree.fail(f"{path} holds {', '.join(file) or 'nothing'} and no array {key}. Download it again.")
            found = file[key]
            if found.dtype != np.uint8:
                raise tree.fail(f"{path}: array {key} is {found.dtype}, not uint8. Download it again.")
            return found.shape, found[:] if load else None
    except OSError as error:
        raise tree.fail(f"{path} is not an HDF5 file that can be read ({error}). Download it again.") from error


def _slides(tree: Tree, meta: Path, n: int) -> np.ndarray:
    """The slide of each patch, or "" where the table is not there."""
    if not meta.is_file():
        tree.warnings.append(f"there is no {meta.name}, so the slides of its patches are not known")
        return np.full(n, "")
    slides = read_csv(tree.watch(meta), required=("wsi",))["wsi"]
    if len(slides) != n:
        raise tree.fail(f"{meta} has {len(slides):,} rows for {n:,} patches. Download it again.")
    return np.array(slides, dtype=str)
