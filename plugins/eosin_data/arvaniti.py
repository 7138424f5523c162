"""Arvaniti's Gleason set: prostate tissue cores with masks, or the patches that its authors' script cuts from them."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import eosin
from eosin.errors import MissingError
from eosin.tiles import load_rgb

from .masks import read_mask
from .official import Tree, options_of

CORE = re.compile(r"(?P<core>ZT\d+_\d+_[ABC]_\d+_\d+)\.jpg")
MASK = re.compile(r"mask(?P<patho>[12]?)_(?P<core>ZT\d+_\d+_[ABC]_\d+_\d+)\.png")
PATCH = re.compile(r"(?P<core>ZT\d+_\d+_[ABC]_\d+_\d+)_patch_(?P<i>\d+)_class_(?P<c>[0-3])\.jpg")
BLOCK = re.compile(r"ZT\d+_\d+_[ABC]")
CLASSES = ("benign", "gleason_3", "gleason_4", "gleason_5")
VALUES = (0, 1, 2, 3, 4)  # 4: ignore, drawn white
SPLITS = {"ZT111": "train", "ZT199": "train", "ZT204": "train", "ZT76": "val", "ZT80": "test"}
READY, TEST = "train_validation_patches_750", "test_patches_750"
CORES, PATCHES = 886, 22_752


class GleasonArvaniti(eosin.Dataset):
    """Ready-made patches where they are, else patches cut from cores and masks by the authors' rule.

    The rule: 750 px, every 375 px, one class in the centre third of the mask, mean brightness below 180. Neighbours
    overlap by half, so the group is the core, which is one patient. Options: `pathologist` 1 or 2, who labelled the test
    part; `patch`, `step` px; `brightness`.
    """

    kind = "gleason-arvaniti"
    defaults = {"pathologist": ("1", "2"), "patch": 750, "step": 375, "brightness": 180}
    host, doi = "https://dataverse.harvard.edu", "doi:10.7910/DVN/OCYCMP"

    def downloads(self) -> list[tuple[str, str, str]]:
        """The archives that the Dataverse lists now, with its checksums.

        Raises:
            MissingError: it does not answer, or not as its API is documented.
        """
        address = f"{self.host}/api/datasets/:persistentId/?persistentId={self.doi}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                files = [f["dataFile"] for f in json.load(answer)["data"]["latestVersion"]["files"]]
            return [(f"{self.host}/api/access/datafile/{f['id']}", f["filename"], f"md5:{f['md5']}") for f in files]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MissingError(
                f"{address} gives no list of files ({error}). Download them by hand: {self.card.url}"
            ) from error

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        o = options_of(self, self.defaults)
        top = tree.find(
            lambda f: (f / READY).is_dir() or (f / "TMA_images").is_dir() or any(map(_is_block, tree.folders(f)))
        )
        rows = list(_ready(tree, top, o) if (top / READY).is_dir() else _cut(tree, top, o))
        tree.compare(len(rows), PATCHES, "patches")
        tree.warnings.append(
            "neighbouring patches overlap by half: random folds leak, grouped folds keep a core on one side"
        )
        return tree.table(rows, CLASSES, cores=len({r["group"] for r in rows}))


def _is_block(folder: Path) -> bool:
    return BLOCK.fullmatch(folder.name) is not None


def _row(tree: Tree, file: Path, core: str, label: int, **more: Any) -> dict[str, object]:
    tma = core.rsplit("_", 2)[0]
    about = {"id": file.stem, "source": tree.relative(file), "label": label, "group": core, "slide": tma}
    return {**about, "split": SPLITS.get(core.partition("_")[0], ""), **more}


def _ready(tree: Tree, top: Path, o: dict[str, Any]) -> Iterator[dict[str, object]]:
    for part in (top / READY, top / TEST / f"patho_{o['pathologist']}"):
        for folder in tree.folders(part) if part.is_dir() else []:
            for file in tree.files(folder):
                found = PATCH.fullmatch(file.name)
                if found is None:
                    raise tree.odd(file, "<core>_patch_<number>_class_<0-3>.jpg")
                if found["core"] != folder.name:
                    raise tree.disagree(file, f"it lies under {folder.name}", f"its name says {found['core']}")
                yield _row(tree, file, found["core"], int(found["c"]))


def _cut(tree: Tree, top: Path, o: dict[str, Any]) -> Iterator[dict[str, object]]:
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for folder in tree.below(top):
        if folder.name == "TMA_images" or _is_block(folder):
            for file in tree.files(folder):
                found = CORE.fullmatch(file.name)
                if found is None:
                    raise tree.odd(file, "ZT<n>_<n>_<A-C>_<row>_<column>.jpg")
                tree.once(images, found["core"], file)
        elif folder.name.startswith("Gleason_masks_"):
            for file in tree.files(folder):
                found = MASK.fullmatch(file.name)
                if found is None:
                    raise tree.odd(file, "mask[1|2]_<core>.png")
                if found["patho"] in ("", o["pathologist"]):
                    tree.once(masks, found["core"], tree.watch(file))
    tree.compare(len(images), CORES, "cores")
    tree.note(len(images.keys() - masks.keys()), "cores have no mask and were left out")
    tree.note(len(masks.keys() - images.keys()), "masks have no core and were passed over")
    both = sorted(images.keys() & masks.keys())
    with ThreadPoolExecutor(2) as pool:
        for rows in pool.map(lambda core: _patches(tree, core, images[core], masks[core], o), both):
            yield from rows


def _patches(tree: Tree, core: str, image: Path, mask: Path, o: dict[str, Any]) -> list[dict[str, object]]:
    """The patches of one core that the authors' rule keeps."""
    try:
        pixels = np.asarray(load_rgb(image))
    except (OSError, ValueError) as error:
        raise tree.fail(f"{image} cannot be read ({error}). Download it again.") from error
    classes = read_mask(mask, VALUES)
    if classes.shape != pixels.shape[:2]:
        raise tree.fail(
            f"{mask} is {classes.shape[::-1]} px and {image} is {pixels.shape[1::-1]} px. Download both again."
        )
    patch, step, rows = int(o["patch"]), int(o["step"]), []
    third = patch // 3
    for y in range(0, classes.shape[0] - patch + 1, step):
        for x in range(0, classes.shape[1] - patch + 1, step):
            centre = classes[y + third : y + patch - third, x + third : x + patch - third]
            label = int(centre[0, 0])
            bright = pixels[y : y + patch, x : x + patch].mean() >= float(o["brightness"])
            if label < len(CLASSES) and (centre == label).all() and not bright:
                rows.append(_row(tree, image, core, label, id=f"{core}#{x},{y}", x=x, y=y, w=patch, h=patch))
    return rows
