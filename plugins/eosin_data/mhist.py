"""MHIST: 224 px patches of colorectal polyps, sessile serrated adenoma or hyperplastic polyp."""

from __future__ import annotations

import re
from pathlib import Path

import eosin
from eosin.table import numbers, read_csv

from .official import Tree

NAME = re.compile(r"MHIST_[a-z]+\.png")
TABLE, IMAGES = "annotations.csv", "images"
IMAGE, LABEL, PARTITION = "Image Name", "Majority Vote Label", "Partition"
VOTES = "Number of Annotators who Selected SSA (Out of 7)"
CLASSES = ("SSA", "HP")
SPLITS = {"train": "train", "test": "val"}
OFFICIAL, MD5 = 3_152, "4f4a2c2b621c4caa16635273c9b383f5"


class Mhist(eosin.Dataset):
    """`annotations.csv`, read by its header, and `images/MHIST_<letters>.png`. SSA is 0 and HP is 1, as in eva.

    There are two parts, train and test. As in eva the second chooses the checkpoint and is reported: its split is val, and
    the column `partition` keeps the official name. `votes` says how many of seven pathologists chose SSA.
    """

    kind = "mhist"

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        top = tree.nearest(_is_top) or tree.find(_is_top)
        listed = tree.watch(top / TABLE)
        raw = read_csv(listed, required=(IMAGE, LABEL, PARTITION))
        votes = numbers(listed, VOTES, raw[VOTES], whole=True).tolist() if VOTES in raw else [-1] * len(raw[IMAGE])
        here = {f.name: f for f in tree.files(top / IMAGES, (".png",))} if (top / IMAGES).is_dir() else {}
        seen: dict[str, Path] = {}
        rows = []
        for line, (name, label, part, vote) in enumerate(
            zip(raw[IMAGE], raw[LABEL], raw[PARTITION], votes, strict=True), start=2
        ):
            where = f"{listed}, line {line}"
            if NAME.fullmatch(name) is None:
                raise tree.fail(f"{where}: image {name!r} is not MHIST_<letters>.png. Download the official table.")
            if label not in CLASSES or part not in SPLITS:
                raise tree.fail(
                    f"{where}: {label!r} and {part!r} are not {' or '.join(CLASSES)} and {' or '.join(SPLITS)}. Download the official table."
                )
            tree.once(seen, name, Path(where))
            if name in here:
                rows.append(
                    {
                        "id": Path(name).stem, "source": tree.relative(here[name]), "label": CLASSES.index(label),
                        "split": SPLITS[part], "partition": part, "votes": vote,
                    }
                )  # fmt: skip
        tree.note(len(seen) - len(rows), f"images of {TABLE} are not in {IMAGES}/: a partial download")
        tree.note(len(here.keys() - seen.keys()), f"images of {IMAGES}/ are not in {TABLE} and were passed over")
        tree.compare(len(rows), OFFICIAL, "images")
        if len(seen) == OFFICIAL:
            tree.compare_md5(listed, MD5)
        tree.warnings.append("no patients are known; the official parts are the only split")
        return tree.table(rows, CLASSES)


def _is_top(folder: Path) -> bool:
    return (folder / TABLE).is_file()
