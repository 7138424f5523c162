"""TIGER's tissue regions, and BCSS, where they come from: patches of five tissues of breast cancer from 21 centres."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

import eosin
from eosin.dataset import folders_below, indent, names_below
from eosin.errors import CardError, DataError
from eosin.pixels import opened

CLASSES = ("invasive tumor", "in-situ tumor", "tumor-associated stroma", "inflamed stroma", "necrosis")
MASKS = "masks"


class Tiger(eosin.Dataset):
    """`tissue-bcss/{images,masks}/<slide>_[x0, y0, x1, y1].png` of WSIROIS, one mask a region, of the same name.

    Patches are boxes of the region images. One whose mask is to `purity` or more of one of the five classes has it as its
    label; the others are left out and counted. Centre is the TCGA tissue source site; regions of RUMC and JB, which have
    no part in the 21 centres, are left out and counted. Options: `patch` and `stride` in px (0: as `patch`, side by
    side), `purity`, `mpp` of the region images.
    """

    kind = "tiger"
    labels = {1: 0, 3: 1, 2: 2, 6: 3, 5: 4}  # mask number -> class
    images = ("images",)
    form = "<slide>_[x0, y0, x1, y1].png"
    pattern = re.compile(r"(?P<slide>.+)_\[(?P<x>\d+), ?(?P<y>\d+), ?(?P<x1>\d+), ?(?P<y1>\d+)\]\.png")
    defaults = {"patch": 224, "stride": 0, "purity": 0.9, "mpp": 0.5}
    official = 151

    def items(self, root: Path) -> eosin.Table:
        o = self._options()
        top = self._top(root)
        images = next(top / name for name in self.images if (top / name).is_dir())
        rows: list[dict[str, Any]] = []
        left = {"elsewhere": 0, "mixed": 0, "small": 0, "trimmed": 0}
        regions = 0
        for file in names_below(images):
            found = self._read_name(file)
            if found is None:
                if file.lower().endswith(".png"):
                    raise self._odd(images / file)
                continue
            slide, x0, y0 = found
            if not slide.startswith("TCGA-"):
                left["elsewhere"] += 1
                continue
            mask = top / MASKS / file
            if not mask.is_file():
                raise DataError(f"{self.card.name}: {images / file} has no mask {mask}. Unpack the masks again.")
            drawn = _read_mask(self.card.name, mask)
            width, height = _size(self.card.name, images / file)
            if max(abs(drawn.shape[1] - width), abs(drawn.shape[0] - height)) > 2:
                raise DataError(
                    f"{self.card.name}: {mask} is {drawn.shape[1]} x {drawn.shape[0]} px and its image {width} x {height}. "
                    "One is of another region: unpack both again."
                )
            left["trimmed"] += drawn.shape != (height, width)
            drawn = drawn[:height, :width]
            regions += 1
            left["small"] += min(drawn.shape) < o["patch"]
            about = {"slide": slide, "group": slide[:12], "centre": slide[5:7], "mpp": o["mpp"]}
            about["source"] = (images / file).relative_to(root).as_posix()
            about["mask"] = mask.relative_to(root).as_posix()
            for x, y, label, share in _patches(drawn, o, self.labels):
                if label < 0:
                    left["mixed"] += 1
                    continue
                box = {"x": x, "y": y, "w": o["patch"], "h": o["patch"], "roi_x": x0, "roi_y": y0}
                rows.append({**about, **box, "id": f"{file[:-4]}#{x},{y}", "label": label, "purity": share})
        return self._table(rows, regions, left, o, [root, top, images, top / MASKS])

    def mask(self, root: Path, table: eosin.Table, i: int) -> np.ndarray:
        """(h, w) int64: 0 where no class of the five is, else 1 + the class."""
        x, y, w, h = (int(table[c][i]) for c in "xywh")
        drawn = _read_mask(self.card.name, root / str(table["mask"][i]))[y : y + h, x : x + w]
        number = np.zeros(256, np.int64)
        for code, label in self.labels.items():
            number[code] = 1 + label
        return number[drawn]

    def _read_name(self, file: str) -> tuple[str, int, int] | None:
        """Slide, and where the region begins on it."""
        found = self.pattern.fullmatch(file)
        said = found and found.groupdict().get("mpp")
        mpp = float(self.card.options.get("mpp", self.defaults["mpp"]))
        if said and abs(float(said) / mpp - 1) > 0.05:
            raise DataError(
                f"{self.card.name}: {file} says {float(said):g} um per pixel, and the card's option mpp is {mpp:g}. Set mpp: {float(said):g}, "
                "and `patch` to as many pixels as make 112 um."
            )
        return found and (found["slide"], int(found["x"]), int(found["y"]))

    def _options(self) -> dict[str, Any]:
        name, given = self.card.name, dict(self.card.options)
        wrong = [k for k in given if k not in self.defaults]
        if wrong:
            raise CardError(f"dataset {name}: no option {', '.join(wrong)}. Its options: {', '.join(self.defaults)}.")
        o = {**self.defaults, **given}
        o["patch"], o["stride"] = int(o["patch"]), int(o["stride"]) or int(o["patch"])
        if o["patch"] < 1 or o["stride"] < 1 or not 0.5 < o["purity"] <= 1:
            raise CardError(
                f"dataset {name}: patch={o['patch']}, stride={o['stride']}, purity={o['purity']}. Give at least 1 px, and "
                "a purity above 0.5 up to 1, so that a patch has one class."
            )
        return o

    def _top(self, root: Path) -> Path:
        """The folder with images and masks: the root, or below it `tissue-bcss` where there are several."""
        level, found = [root] if root.is_dir() else [], []
        for _ in range(6):
            found += [f for f in level if (f / MASKS).is_dir() and any((f / n).is_dir() for n in self.images)]
            level = [f for folder in level for f in folders_below(folder) if f.name not in (MASKS, *self.images)]
        named = [f for f in found if f.name != "tissue-cells"]
        if not named:
            raise DataError(
                f"{self.card.name}: {root} holds no folder with {' or '.join(self.images)} and {MASKS}. Expected there:\n"
                f"{indent(self.card.tree)}\n`bench data where {self.card.name}` says how to get it."
            )
        return min(named, key=lambda f: (f.name != "tissue-bcss", len(f.parts), str(f)))

    def _odd(self, file: Path) -> DataError:
        return DataError(f"{self.card.name}: {file} does not match {self.form}. Move it away, or copy it again.")

    def _table(
        self, rows: list[dict[str, Any]], regions: int, left: dict[str, int], o: dict[str, Any], watched: list[Path]
    ) -> eosin.Table:
        if not rows:
            raise DataError(
                f"{self.card.name}: {regions} regions, and none holds a patch of {o['patch']} px that is {o['purity']:g} of one class. "
                "Lower the options `patch` or `purity` of its card."
            )
        table = eosin.Table.of(rows, classes=CLASSES)
        centres = len(np.unique(table["centre"]))
        table.counts = {"regions": regions, "slides": len(np.unique(table["slide"])), "centres": centres}
        table.watched = tuple(map(str, dict.fromkeys(watched)))
        says = {
            "elsewhere": "regions are of RUMC or JB, not of TCGA, and were left out",
            "mixed": f"patches are to less than {o['purity']:g} of one of the five classes and were left out",
            "small": f"regions are smaller than a patch of {o['patch']} px",
            "trimmed": "masks differ from their images by a pixel or two: what both have was used",
        }
        table.warnings = [f"{left[key]:,} {text}" for key, text in says.items() if left[key]]
        if regions != self.official:
            table.warnings.append(f"{regions} regions of the official {self.official}: a subset or a partial download")
        present = set(table["label"].tolist())
        table.warnings += [f"class {c} has no patches" for i, c in enumerate(CLASSES) if i not in present]
        return table


class Bcss(Tiger):
    """BCSS itself (CC0): the same 151 regions and 21 centres at 0.25 um per px, its own mask numbers as the five classes.

    `{rgbs_colorNormalized,rgbs,images}` and `masks`, `<slide>_xmin<x>_ymin<y>_MPP-<mpp>.png`. The mapping is ours:
    tumor, dcis, stroma, lymphocytic_infiltrate, necrosis_or_debris.
    """

    kind = "bcss"
    labels = {1: 0, 20: 1, 2: 2, 3: 3, 4: 4}
    images = ("rgbs_colorNormalized", "rgbs", "images")
    form = "<slide>_xmin<x>_ymin<y>_MPP-<mpp>.png"
    pattern = re.compile(r"(?P<slide>.+)_xmin(?P<x>\d+)_ymin(?P<y>\d+)(?:_MPP-(?P<mpp>[\d.]+))?\.png")
    defaults = {"patch": 448, "stride": 0, "purity": 0.9, "mpp": 0.25}


def _patches(drawn: np.ndarray, o: dict[str, Any], labels: dict[int, int]) -> list[tuple[int, int, int, float]]:
    """(x, y, class or -1, its share) of every whole patch of a mask (h, w)."""
    side, step = o["patch"], o["stride"]
    ys, xs = (np.arange(0, max(n - side + 1, 0), step) for n in drawn.shape)
    if not len(xs) or not len(ys):
        return []
    share = np.zeros((len(CLASSES), len(ys), len(xs)))
    for code, label in labels.items():
        whole = np.zeros((drawn.shape[0] + 1, drawn.shape[1] + 1), np.int32)  # pixels of the class above and left
        np.cumsum(np.cumsum(drawn == code, axis=0, dtype=np.int32), axis=1, out=whole[1:, 1:])
        low, high = whole[ys], whole[ys + side]
        share[label] = (high[:, xs + side] - high[:, xs] - low[:, xs + side] + low[:, xs]) / side**2
    best = share.argmax(0)
    most = share.max(0)
    return [
        (int(x), int(y), int(best[j, i]) if most[j, i] >= o["purity"] else -1, float(most[j, i]))
        for j, y in enumerate(ys)
        for i, x in enumerate(xs)
    ]


def _read_mask(name: str, path: Path) -> np.ndarray:
    """(h, w) uint8 mask numbers; DataError naming the file when it is no image of one number a pixel."""
    with _opened(name, path) as image:
        if image.mode not in ("L", "P", "I", "I;16"):
            raise DataError(
                f"{name}: {path} is a {image.mode} image, not a mask of one number a pixel. Download the original mask."
            )
        try:
            drawn = np.asarray(image)
        except Exception as error:  # a damaged file may make the decoder raise anything
            raise DataError(f"{name}: {path} cannot be read ({error}). Copy or download it again.") from error
    if drawn.min() < 0 or drawn.max() > 255:
        raise DataError(
            f"{name}: {path} holds {drawn.max()}; mask numbers go from 0 to 255. Download the original mask."
        )
    return drawn.astype(np.uint8)


def _size(name: str, path: Path) -> tuple[int, int]:
    """(width, height) of an image, from its head."""
    with _opened(name, path) as image:
        return image.size


def _opened(name: str, path: Path) -> Any:
    try:
        return opened(path)
    except Exception as error:  # as above
        raise DataError(f"{name}: {path} cannot be read ({error}). Copy or download it again.") from error
