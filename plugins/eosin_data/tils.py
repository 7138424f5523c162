"""TCGA-TILs: 100 x 100 px patches, with tumour-infiltrating lymphocytes or without."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import eosin
from eosin.table import read_csv

from .official import Tree, options_of

NAME = re.compile(r"(?P<barcode>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}[A-Za-z0-9.\-]*)_(?P<md5>[0-9a-f]{32})\.png")
FORM = "<TCGA barcode>_<md5>.png"
IMAGES, METADATA, COPY = "images-tcga-tils", "images-tcga-tils-metadata.csv", "pancancer"
CLASSES = ("til-negative", "til-positive")
SPLITS = ("train", "val", "test")
OFFICIAL, PAPER = 304_097, 5_245


class Tils(eosin.Dataset):
    """`images-tcga-tils/<study>/<split>/<class>/<barcode>_<md5>.png`; group is the participant, centre the source site.

    `pancancer` links to the tiles of all studies and is never read. Where the metadata csv is there, folders and csv
    must agree. Options: `study` (brca; `all` for every one), `partition` (all, or train, val, test).
    """

    kind = "tils"

    def downloads(self) -> list[tuple[str, str, str]]:
        address = "https://zenodo.org/records/6604094/files/TCGA-TILs.tar.gz?download=1"
        return [(address, "TCGA-TILs.tar.gz", "md5:42d387c2f8d300dea8bb8a544b43ad3c")]

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        options = options_of(self, {"study": "brca", "partition": "all"})
        images = tree.find(lambda f: f.name == IMAGES)
        studies = [f for f in tree.folders(images) if f.name != COPY and options["study"] in (f.name, "all")]
        splits = [s for s in SPLITS if options["partition"] in (s, "all")]
        rows = [row for study in studies for split in splits for row in _rows(tree, study, split)]
        if images != root and (images.parent / METADATA).is_file():
            _compare(tree, rows, tree.watch(images.parent / METADATA), {s.name for s in studies}, splits)
        if options["study"] == "all":
            tree.compare(len(rows), OFFICIAL, "tiles")
        else:
            tree.warnings.append(
                f"{len(rows):,} tiles of {options['study']}; G2L says {PAPER:,}, by a filter it does not give"
            )
        return tree.table(rows, CLASSES, participants=len({r["group"] for r in rows}))


def _rows(tree: Tree, study: Path, split: str) -> list[dict[str, object]]:
    """One split of one study; not every one has both class folders."""
    rows = []
    for folder in tree.folders(study / split) if (study / split).is_dir() else []:
        if folder.name not in CLASSES:
            raise tree.fail(f"{folder} is neither {' nor '.join(CLASSES)}. Move it away.")
        files = tree.files(folder)
        if not files:
            raise tree.fail(f"{folder} is empty. Unpack the archive again, or remove the folder.")
        for file in files:
            found = NAME.fullmatch(file.name)
            if found is None:
                raise tree.odd(file, FORM)
            participant = found["barcode"][:12]
            rows.append(
                {
                    "id": file.stem,
                    "source": tree.relative(file),
                    "label": CLASSES.index(folder.name),
                    "split": split,
                    "group": participant,
                    "centre": participant[5:7],
                    "study": study.name,
                }
            )
    return rows


def _compare(tree: Tree, rows: list[dict[str, Any]], metadata: Path, studies: set[str], splits: list[str]) -> None:
    """The csv against the folders: label and split must agree; rows without a file, and files without a row, are counted."""
    raw = read_csv(metadata, required=("partition", "study", "barcode", "label", "path"))
    labels = {name: i for i, name in enumerate(CLASSES)} | {"0": 0, "1": 1}
    listed = {}
    for line, (path, label, split, study) in enumerate(
        zip(raw["path"], raw["label"], raw["partition"], raw["study"], strict=True), start=2
    ):
        if label not in labels:
            raise tree.fail(f"{metadata}, line {line}: label {label!r} is neither {' nor '.join(CLASSES)}. Correct it.")
        if study in studies and split in splits:
            listed[path.rpartition("/")[2]] = labels[label], split
    here = set()
    for row in rows:
        name = f"{row['id']}.png"
        here.add(name)
        said, part = listed.get(name, (row["label"], row["split"]))
        if (said, part) != (row["label"], row["split"]):
            raise tree.disagree(
                tree.root / str(row["source"]),
                f"its folders say {CLASSES[row['label']]} and {row['split']}",
                f"{metadata.name} says {CLASSES[said]} and {part}",
            )
    tree.note(len(listed.keys() - here), f"tiles of {metadata.name} have no file: a partial download")
    tree.note(len(here - listed.keys()), f"tiles are not in {metadata.name}")
