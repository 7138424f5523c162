"""CHIMERA task 1: prostatectomy slides of 95 patients, with biochemical recurrence or without."""

from __future__ import annotations

import json
import re
from pathlib import Path

import eosin

from .official import Tree, options_of
from .wsi import TILING, tiles_of_slides

SLIDE = re.compile(r"(?P<patient>\d+)_(?P<n>\d+)\.tif")
MASK = re.compile(r"(?P<patient>\d+)_(?P<n>\d+)_tissue\.tif")
CLASSES = ("no BCR", "BCR")
SLIDES, PATIENTS = 190, 95


class Chimera(eosin.Dataset):
    """`pathology/images/<patient>/<patient>_<n>.tif` and `clinical_data/<patient>.json`, whose BCR is the label of each slide.

    `*_tissue.tif` are masks, not slides. Random folds put slides of one patient on both sides; grouped folds do not.
    """

    kind = "chimera"
    on_slides = True

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        options_of(self, TILING)
        top = tree.find(lambda f: (f / "pathology" / "images").is_dir() and (f / "clinical_data").is_dir())
        rows, unknown = [], []
        for folder in tree.folders(top / "pathology" / "images"):
            slides = [f for f in tree.files(folder, (".tif",)) if not MASK.fullmatch(f.name)]
            label = _label(tree, top / "clinical_data" / f"{folder.name}.json") if slides else None
            if slides and label is None:
                unknown.append(folder.name)
                continue
            for file in slides:
                found = SLIDE.fullmatch(file.name)
                if found is None:
                    raise tree.odd(file, "<patient>_<number>.tif")
                if found["patient"] != folder.name:
                    raise tree.disagree(
                        file, f"it lies under patient {folder.name}", f"its name says {found['patient']}"
                    )
                about = {"id": file.stem, "source": tree.relative(file), "label": label, "group": folder.name}
                rows.append({**about, "slide": file.stem, "centre": "radboudumc"})
        tree.compare(len(rows), SLIDES, "slides")
        tree.note(len(unknown), f"patients have no known BCR and were left out: {', '.join(unknown[:5])}")
        tree.warnings.append(
            "the label is the patient's, copied to each slide: random folds leak, grouped folds do not"
        )
        return tree.table(rows, CLASSES, patients=len({r["group"] for r in rows}))

    def tiles(self, root: Path, items: eosin.Table) -> eosin.Table:
        return tiles_of_slides(self, root, items)


def _label(tree: Tree, path: Path) -> int | None:
    """BCR of one patient: the text "0.0" or "1.0", or a number; None for "x" or nothing."""
    if not path.is_file():
        raise tree.fail(f"{path} is missing, so its slides have no label. Download clinical_data as well.")
    try:
        record = json.loads(tree.watch(path).read_text("utf-8"))
    except ValueError as error:
        raise tree.fail(f"{path} is not JSON ({error}). Download it again.") from error
    record = record[0] if isinstance(record, list) and len(record) == 1 else record
    if not isinstance(record, dict) or "BCR" not in record:
        raise tree.fail(f"{path} has no entry BCR. Download it again.")
    text = "" if record["BCR"] is None else str(record["BCR"]).strip().lower()
    if text in ("", "x", "nan", "na"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value not in (0.0, 1.0):
        raise tree.fail(f"{path}: BCR is {record['BCR']!r}, not 0 or 1. Download it again.")
    return int(value)
