"""PathoROB's datasets by their public manifests: one row a patch, with class, centre, slide and subset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import eosin
from eosin.dataset import files_below, indent
from eosin.errors import CardError, DataError
from eosin.table import read_csv

COLUMNS = ("subset", "slide_id", "patch_id", "biological_class", "medical_center")
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


class PathoROB(eosin.Dataset):
    """`<manifest>.csv` as in PathoROB's `data/metadata`, and `images/<slide_id>-<patch_id>.png` (its own ids).

    Options: `manifest`, the csv's name; `subset`: ID leaves out the rows of other centres (OOD), as its robustness index
    does; all keeps every row, as its performance drop needs. A patch that stands in several subsets is an item in each.
    """

    kind = "pathorob"
    defaults = {"manifest": "camelyon", "subset": "ID"}

    def items(self, root: Path) -> eosin.Table:
        name, given = self.card.name, dict(self.card.options)
        if wrong := [k for k in given if k not in self.defaults]:
            raise CardError(f"dataset {name}: no option {', '.join(wrong)}. Its options: {', '.join(self.defaults)}.")
        o = {**self.defaults, **given}
        if o["subset"] not in ("ID", "all"):
            raise CardError(f"dataset {name}: option subset is ID or all, not {o['subset']!r}.")
        manifest, images = root / f"{o['manifest']}.csv", root / "images"
        if not manifest.is_file() or not images.is_dir():
            raise DataError(
                f"{name}: {root} lacks {manifest.name} or images/. Expected there:\n{indent(self.card.tree)}"
            )
        raw = read_csv(manifest, required=COLUMNS)
        files = {f.stem: f.relative_to(root).as_posix() for f in files_below(images, ENDINGS)}
        kept = [i for i, s in enumerate(raw["subset"]) if o["subset"] == "all" or s != "OOD"]
        patches = [f"{raw['slide_id'][i]}-{raw['patch_id'][i]}" for i in kept]
        absent = [p for p in patches if p not in files]
        if absent:
            raise DataError(
                f"{name}: {len(absent):,} of {len(patches):,} patches have no image in {images}, such as {absent[0]}.png. Export them again."
            )
        classes = tuple(sorted({raw["biological_class"][i] for i in kept}))
        several = len(set(patches)) < len(patches)
        rows: list[dict[str, Any]] = []
        for i, patch in zip(kept, patches, strict=True):
            about = {"source": files[patch], "subset": raw["subset"][i], "slide": raw["slide_id"][i]}
            about |= {"centre": raw["medical_center"][i], "label": classes.index(raw["biological_class"][i])}
            rows.append({**about, "id": f"{patch}@{raw['subset'][i]}" if several else patch})
        table = eosin.Table.of(rows, classes=classes)
        table.counts = {
            "patches": len(set(patches)),
            "slides": len(np.unique(table["slide"])),
            "centres": len(np.unique(table["centre"])),
        }
        left = len(raw["subset"]) - len(kept)
        table.warnings = [f"{left:,} rows of other centres (OOD) were left out"] if left else []
        table.watched = tuple(map(str, (root, manifest, images)))
        return table
