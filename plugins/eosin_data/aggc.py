"""AGGC 2022: prostate slides at 20x with a mask a class; tiles labelled by the class of most annotated pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import eosin

from .bands import MaskImage, first_page
from .masks import NONE, cell_counts, cell_labels
from .official import Tree, options_of

SLIDE = re.compile(r"(?P<case>Subset(?P<subset>[123])_(?P<part>Train|Test|Val)_\d+)(?:_(?P<scanner>[A-Za-z]+))?\.tiff?")
MASK = re.compile(r"(?P<cls>Stroma|Normal|G3|G4|G5)_Mask\.tiff?")
FOLDER = re.compile(r"(?P<set>Subset[123]_(?:Train|Test|Val))_(?P<what>image|annotation)")
CLASSES = ("benign", "stroma", "G3", "G4", "G5")
ON_DISK = ("Normal", "Stroma", "G3", "G4", "G5")  # in the order of CLASSES
OFFICIAL = {
    "Subset1_Train": 105, "Subset1_Test": 45, "Subset2_Train": 37, "Subset2_Test": 16, "Subset3_Train": 144, "Subset3_Test": 67,
}  # fmt: skip
PAPER = 156_130
RECUT = {"g3", "g4", "g5", "normal", "stroma"}  # class folders of a second public layout


class Aggc(eosin.Dataset):
    """Tiles of `SubsetN_Train_image/<slide>.tiff`, labelled by `SubsetN_Train_annotation/[Train/]<slide>/<class>_Mask.tif`.

    A class without a mask file is absent from the slide; what no mask covers is unknown, not benign. Where masks overlap the
    class that stands last in `rank` holds the pixel, and it wins the ties of a tile. The group is the case: in subset 3 one
    specimen is scanned several times. The paper states none of these, so all are options:

    `subsets` [1, 2]; `patch` 256 px of the full resolution; `cover` .5; `tile_ties` worst or drop; `rank`; `sample`: at most
    so many tiles a slide, drawn with `seed` (0: all); `skip`: damaged slides; `crop`: {slide: columns}, where image and mask
    differ by that width, the first columns of the wider one are passed over.
    """

    kind = "aggc"
    defaults = {
        "subsets": [1, 2], "patch": 256, "cover": 0.5, "tile_ties": ("worst", "drop"),
        "rank": ["Stroma", "Normal", "G3", "G4", "G5"], "sample": 0, "seed": 0,
        "skip": ["Subset1_Train_83"], "crop": {"Subset1_Train_96": 1500},
    }  # fmt: skip

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        o = options_of(self, self.defaults)
        _refuse_recut(tree)
        tree.find(lambda f: any(FOLDER.fullmatch(sub.name) for sub in tree.folders(f)))
        images, masks = _files(tree, {int(s) for s in o["subsets"]})
        skipped = sorted(images.keys() & set(o["skip"]))
        if skipped:
            tree.warnings.append(f"known to be damaged and left out: {', '.join(skipped)}")
        bare = sorted(images.keys() - masks.keys() - set(skipped))
        tree.note(len(bare), f"slides have no annotation and were left out, such as {''.join(bare[:1])}")
        rows: list[dict[str, Any]] = []
        tied = 0
        for name in sorted(images.keys() & masks.keys() - set(skipped)):
            found, equal = _tiles(tree, images[name], masks[name], o)
            rows, tied = rows + found, tied + equal
        counts = {s: sum(n.startswith(f"{s}_") for n in images) for s in OFFICIAL}
        for part, official in OFFICIAL.items():
            if int(part[6]) in o["subsets"]:
                tree.compare(counts[part], official, f"slides in {part}")
        tree.note(tied, f"tiles have two classes with equally many pixels ({o['tile_ties']})")
        tree.warnings.append(
            f"{len(rows):,} tiles; G2L says {PAPER:,}, by a choice of size, level or sample that it does not give"
        )
        return tree.table(rows, CLASSES, **{s.lower(): n for s, n in counts.items()}, tied_tiles=tied)


def _refuse_recut(tree: Tree) -> None:
    for folder in tree.below(depth=2):
        if {f.name.lower() for f in tree.folders(folder)} >= RECUT:
            raise tree.fail(
                f"{folder} is a set of patches that someone cut from AGGC, not the challenge's slides. "
                "Read it with a dataset of kind: imagefolder, under a name of its own."
            )


def _files(tree: Tree, subsets: set[int]) -> tuple[dict[str, Path], dict[str, dict[str, Path]]]:
    """{slide: image} and {slide: {class: mask}}, with or without the [Train/] level and the scanners' folders."""
    images: dict[str, Path] = {}
    masks: dict[str, dict[str, Path]] = {}
    tops = [(f, m) for f in tree.below() if (m := FOLDER.fullmatch(f.name)) and int(m["set"][6]) in subsets]
    for top, part in tops:
        for folder in tree.below(top):
            for file in tree.files(folder, (".tif", ".tiff")):
                if part["what"] == "image":
                    found = SLIDE.fullmatch(file.name)
                    if found is None:
                        raise tree.odd(file, "SubsetN_Train_<case>[_<scanner>].tiff")
                    if not file.name.startswith(part["set"] + "_"):
                        raise tree.disagree(file, f"it lies under {top.name}", f"its name says {found['case']}")
                    tree.once(images, file.stem, file)
                else:
                    found = MASK.fullmatch(file.name)
                    if found is None:
                        raise tree.odd(file, f"<{'|'.join(ON_DISK)}>_Mask.tif")
                    tree.once(masks.setdefault(folder.name, {}), found["cls"], tree.watch(file))
    return images, masks


def _tiles(tree: Tree, image: Path, masks: dict[str, Path], o: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """The labelled tiles of one slide, and how many were tied."""
    patch, rank = int(o["patch"]), [ON_DISK.index(c) for c in o["rank"]]
    opened = {c: MaskImage(masks[c]) for c in o["rank"] if c in masks}
    page, shift = first_page(image), int(o["crop"].get(image.stem, 0))
    width, height = page.imagewidth, page.imagelength
    for cls, mask in opened.items():
        if mask.height != height or (mask.width != width and abs(mask.width - width) != shift):
            raise tree.fail(
                f"{masks[cls]} is {mask.width} x {mask.height} px and {image} is {width} x {height} px. Download both again, "
                f"or set options: {{crop: {{{image.stem}: <columns>}}}} or {{skip: [{image.stem}]}}."
            )
    mask_width = max((m.width for m in opened.values()), default=width)
    from_mask, from_image = max(0, mask_width - width), max(0, width - mask_width)
    labels, tied = [], 0
    for band in _bands(opened, patch, height):
        counts = cell_counts(band[:, from_mask:], patch, len(CLASSES))
        label, equal = cell_labels(counts, patch, float(o["cover"]), o["tile_ties"], rank)
        labels.append(label)
        tied += int(equal.sum())
    grid = np.concatenate(labels) if labels else np.zeros((0, 0), np.int64)
    cells = np.argwhere(grid >= 0)
    if 0 < int(o["sample"]) < len(cells):
        chosen = np.random.default_rng([int(o["seed"]), *image.stem.encode()]).permutation(len(cells))[
            : int(o["sample"])
        ]
        cells = cells[np.sort(chosen)]
    name = SLIDE.fullmatch(image.name)
    assert name is not None, "only such names were collected"
    about = {
        "source": tree.relative(image), "split": name["part"].lower(), "group": name["case"], "slide": image.stem,
        "centre": name["scanner"] or "", "w": patch, "h": patch, "px": patch if page.is_tiled else 0,  # flat images are read whole
    }  # fmt: skip
    places = [(int(column) * patch + from_image, int(row) * patch, int(grid[row, column])) for row, column in cells]
    return [{**about, "id": f"{image.stem}#{x},{y}", "x": x, "y": y, "label": c} for x, y, c in places], tied


def _bands(masks: dict[str, MaskImage], patch: int, height: int) -> Iterator[np.ndarray]:
    """Class of each pixel, some rows of cells at a time; a later mask (higher rank) lies over an earlier one."""
    if not masks:
        return
    rows = patch * max(1, max(m.rows for m in masks.values()) // patch)
    for y in range(0, height - patch + 1, rows):
        band = np.full((min(rows, height - y), max(m.width for m in masks.values())), NONE, np.uint8)
        for cls, mask in masks.items():
            drawn = mask.read(y, y + len(band))
            band[:, : drawn.shape[1]][drawn] = ON_DISK.index(cls)
        yield band
