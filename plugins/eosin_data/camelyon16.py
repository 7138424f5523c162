"""Camelyon16: slides of sentinel lymph nodes, with a metastasis or without; split as in eva."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import eosin

from .official import Tree, options_of
from .wsi import TILING, tiles_of_slides

SLIDE = re.compile(r"(?P<kind>normal|tumor|test)_(?P<n>\d{3})\.tif")
CLASSES = ("normal", "tumor")
OFFICIAL = {"normal": 159, "tumor": 111, "test": 129}
REFERENCE = "reference.csv"
# The slides of PatchCamelyon's validation part, which eva takes as its own.
VAL = {
    "normal": (10, 13, 16, 17, 19, 20, 25, 30, 31, 32, 52, 56, 57, 67, 76, 79, 85, 95, 98, 99, 101, 102, 105, 106, 109,
               129, 132, 137, 142, 143, 148, 152),
    "tumor": (1, 5, 11, 12, 13, 19, 31, 37, 43, 46, 57, 65, 69, 71, 73, 79, 80, 81, 82, 85, 97, 109),
}  # fmt: skip


class Camelyon16(eosin.Dataset):
    """`training/{normal,tumor}/*.tif`, `testing/images/test_*.tif` and `testing/reference.csv`, which has no header; or
    the cloud's `images/*.tif` with `evaluation/reference.csv`, else `annotations/*.xml`: a drawn test slide has tumour.

    Train and val (54 slides) are the training part, labelled by name; test is the testing part. Old copies hold normal_086,
    which is tumor_111, and test_049, which is a duplicate: both are left out.
    """

    kind = "camelyon16"
    on_slides = True

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        options_of(self, TILING)
        slides = _slides(tree)
        labels = _labels(tree, slides) if any(name.startswith("test") for name in slides) else {}
        rows = []
        for name, file in slides.items():
            kind, n = name.split("_")
            if kind == "test" and name not in labels:
                raise tree.fail(f"{REFERENCE} has no row of {name}, so it has no label. Download it again.")
            label = labels[name] if kind == "test" else kind
            split = "test" if kind == "test" else "val" if int(n) in VAL[kind] else "train"
            about = {"id": name, "source": tree.relative(file), "label": CLASSES.index(label), "split": split}
            rows.append({**about, "group": name, "slide": name})
        for kind, official in OFFICIAL.items():
            tree.compare(sum(str(r["id"]).startswith(kind) for r in rows), official, f"{kind} slides")
        tree.warnings.append(
            "its validation slides are those of PatchCamelyon: do not train on one and test on the other"
        )
        return tree.table(rows, CLASSES)

    def tiles(self, root: Path, items: eosin.Table) -> eosin.Table:
        return tiles_of_slides(self, root, items)


def _slides(tree: Tree) -> dict[str, Path]:
    """The slides by name, in order; without what the organisers took back."""
    found: dict[str, Path] = {}
    for folder in [f for f in tree.below(depth=4) if f.name in ("normal", "tumor", "images")]:
        for file in tree.files(folder, (".tif",)):
            name = SLIDE.fullmatch(file.name)
            if name is None:
                raise tree.odd(file, "normal_<nnn>.tif, tumor_<nnn>.tif or test_<nnn>.tif")
            if folder.name in CLASSES and name["kind"] != folder.name:
                raise tree.disagree(file, f"it lies under {folder.name}", f"its name says {name['kind']}")
            tree.once(found, file.stem, file)
    if not found:
        tree.find(lambda folder: False)  # says what is expected
    if found.pop("normal_086", None):
        tree.warnings.append("normal_086 was left out: it holds tumour, and is tumor_111 since")
    if "test_049" in found and sum(name.startswith("test") for name in found) > OFFICIAL["test"]:
        del found["test_049"]
        tree.warnings.append("test_049 was left out: it is a duplicate, and was removed since")
    return dict(sorted(found.items()))


def _labels(tree: Tree, slides: dict[str, Path]) -> dict[str, str]:
    """{test slide: normal or tumor}."""
    folders = list(tree.below(depth=4))
    path = next((f / REFERENCE for f in folders if (f / REFERENCE).is_file()), None)
    if path is not None:
        return _reference(tree, path)
    drawn = {x.stem for f in folders if "annotation" in f.name for x in tree.files(f, (".xml",))}
    if not any(name.startswith("test") for name in drawn):
        raise tree.fail(
            f"{REFERENCE} is missing, so the test slides have no label. Put it into testing/ (or evaluation/), or take "
            "the test slides away."
        )
    tree.warnings.append(f"{REFERENCE} is missing: a test slide with a drawn tumour is tumor, any other normal")
    return {name: CLASSES[name in drawn] for name in slides}


def _reference(tree: Tree, path: Path) -> dict[str, str]:
    """The table has no header: name, Normal or Tumor, and more that is not read."""
    found: dict[str, str] = {}
    try:
        rows = list(csv.reader(tree.watch(path).read_text("utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise tree.fail(f"{path} cannot be read ({error}). Download it again.") from error
    for line, row in enumerate(rows, start=1):
        name = row[0].strip().removesuffix(".tif") if row else ""
        if not name or (line == 1 and not name.startswith("test_")):
            continue  # an empty line, or a header that somebody added
        label = row[1].strip().lower() if len(row) > 1 else ""
        if label not in CLASSES:
            raise tree.fail(f"{path}, line {line}: {','.join(row)!r} does not say Normal or Tumor. Download it again.")
        if found.setdefault(name, label) != label:
            raise tree.fail(f"{path}, line {line}: {name} is {label} here and {found[name]} above. Download it again.")
    return found
