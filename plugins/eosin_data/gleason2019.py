"""Gleason 2019: prostate tissue cores, outlined by up to six pathologists; tiles labelled by their vote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import eosin

from .masks import NONE, cell_counts, cell_labels, read_mask, vote
from .official import Tree, options_of
from .regions import image_size

IMAGE = re.compile(r"(?P<core>slide(?P<slide>\d{3})_core\d{3})\.jpg")
MASK = re.compile(r"(?P<core>slide\d{3}_core\d{3})_classimg_nonconvex\.png")
CLASSES = ("benign", "G3", "G4", "G5")
VALUES = (0, 1, 3, 4, 5, 6)
CORES, PAPER = 331, 77_364
EXPERTS = range(1, 7)


class Gleason2019(eosin.Dataset):
    """Tiles of `Train Imgs/slideNNN_coreNNN.jpg`, labelled by the maps of the same core in Maps1_T … Maps6_T.

    Each pixel gets the class that most pathologists gave it, each tile the class of most of its labelled pixels. The paper
    states neither rule in full, so every choice is an option:

    `patch` 256 px; `cover` .5, the least share of a tile that is labelled; `pixel_ties` drop or worst; `tile_ties` worst or
    drop; `zero` abstain or vote: whether a map's 0 (not annotated) counts as a vote against a label, which hides tumour that
    two of five drew; `six` benign or void: what the value 6 means; `min_experts` 1; `group` core or slide.
    """

    kind = "gleason2019"
    defaults = {
        "patch": 256, "cover": 0.5, "pixel_ties": ("drop", "worst"), "tile_ties": ("worst", "drop"),
        "zero": ("abstain", "vote"), "six": ("benign", "void"), "min_experts": 1, "group": ("core", "slide"),
    }  # fmt: skip

    def items(self, root: Path) -> eosin.Table:
        tree, o = Tree(self, root), options_of(self, self.defaults)
        tree.find(lambda f: any(_plain(sub) == "trainimgs" for sub in tree.folders(f)), depth=2)
        images, maps = _files(tree)
        labelled = {c: f for c, f in images.items() if len(maps.get(c, ())) >= o["min_experts"]}
        tree.compare(len(images), CORES, "cores")
        tree.note(len(images) - len(labelled), f"cores have fewer than {o['min_experts']} maps and were left out")
        tree.note(sum(len(m) for c, m in maps.items() if c not in images), "maps have no image and were passed over")
        with ThreadPoolExecutor(2) as pool:  # decoding leaves the interpreter free; each core may need 200 MB
            cut = list(pool.map(lambda core: _tiles(tree, labelled[core], maps[core], core, o), sorted(labelled)))
        rows, tied = [row for tiles, _ in cut for row in tiles], sum(t for _, t in cut)
        tree.warnings.append(
            f"{len(rows):,} tiles of {len(labelled)} cores; G2L says {PAPER:,} of {CORES}, and 87 have no public maps"
        )
        tree.note(tied, f"tiles have two classes with equally many pixels ({o['tile_ties']})")
        return tree.table(rows, CLASSES, cores_train=len(labelled), tied_tiles=tied)


def _plain(folder: Path) -> str:
    return re.sub("[ _]", "", folder.name.lower())


def _files(tree: Tree) -> tuple[dict[str, Path], dict[str, dict[int, Path]]]:
    """{core: image} and {core: {pathologist: map}}; names of folders are read without case, space and underscore."""
    images: dict[str, Path] = {}
    maps: dict[str, dict[int, Path]] = {}
    for folder in tree.below():
        name = _plain(folder)
        expert = next((e for e in EXPERTS if name == f"maps{e}t"), 0)
        if name == "trainimgs":
            for file in tree.files(folder):
                found = IMAGE.fullmatch(file.name)
                if found is None:
                    raise tree.odd(file, "slideNNN_coreNNN.jpg")
                tree.once(images, found["core"], file)
        elif expert:
            for file in tree.files(folder):
                found = MASK.fullmatch(file.name)
                if found is None:
                    raise tree.odd(file, "slideNNN_coreNNN_classimg_nonconvex.png")
                tree.once(maps.setdefault(found["core"], {}), expert, tree.watch(file))
    return images, maps


def _tiles(
    tree: Tree, image: Path, maps: dict[int, Path], core: str, o: dict[str, Any]
) -> tuple[list[dict[str, Any]], int]:
    """The labelled tiles of one core, and how many were tied."""
    size = image_size(tree.dataset, image)
    drawn = []
    for expert in sorted(maps):
        mask = read_mask(maps[expert], VALUES)
        if mask.shape != size[::-1]:
            raise tree.fail(
                f"{maps[expert]} is {mask.shape[1]} x {mask.shape[0]} px and {image} is {size[0]} x {size[1]} px. Download both again."
            )
        drawn.append(_classes(o)[mask])
    patch, n = int(o["patch"]), len(CLASSES)
    winner = vote(drawn, n + 1, o["pixel_ties"])  # 0 is the vote of those who drew nothing there
    winner = np.where((winner == 0) | (winner == NONE), NONE, winner - 1)
    labels, tied = cell_labels(cell_counts(winner, patch, n), patch, float(o["cover"]), o["tile_ties"], range(n))
    slide = core.partition("_")[0]
    about = {
        "source": tree.relative(image),
        "group": core if o["group"] == "core" else slide,
        "slide": slide,
        "core": core,
    }
    return [
        {**about, "id": f"{core}#{x},{y}", "label": label, "x": x, "y": y, "w": patch, "h": patch, "experts": len(maps)}
        for x, y, label in _used(labels, patch)
    ], int(tied.sum())


def _used(labels: np.ndarray, patch: int) -> Iterator[tuple[int, int, int]]:
    """x, y and class of the cells that have one."""
    for row, column in np.argwhere(labels >= 0).tolist():
        yield column * patch, row * patch, int(labels[row, column])


def _classes(o: dict[str, Any]) -> np.ndarray:
    """What each mask value votes for: one more than the class, 0 for nothing, or NONE: no vote."""
    table = np.full(256, NONE, np.uint8)
    table[[1, 3, 4, 5]] = 1, 2, 3, 4
    if o["six"] == "benign":
        table[6] = 1
    if o["zero"] == "vote":
        table[0] = 0
    return table
