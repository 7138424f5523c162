"""PathoROB's datasets by their public manifests: one row a patch, with class, centre, slide and subset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import eosin
from eosin.dataset import files_below, folders_below, indent
from eosin.errors import CardError, DataError, MissingError
from eosin.table import read_csv

COLUMNS = ("subset", "slide_id", "patch_id", "biological_class", "medical_center")
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


class PathoROB(eosin.Dataset):
    """The parquet files of Hugging Face, or `images/<slide_id>-<patch_id>.png` (its own ids); and `<manifest>.csv` as in
    PathoROB's `data/metadata`, without which the parquet files' own columns say which patch is what.

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
        shards = [f for folder in (root, *folders_below(root)) for f in files_below(folder, (".parquet",))]
        if not shards and not (manifest.is_file() and images.is_dir()):
            raise DataError(
                f"{name}: {root} has no parquet files, and lacks {manifest.name} or images/. Expected there:\n{indent(self.card.tree)}"
            )
        raw: Mapping[str, Sequence[str]]
        if shards:
            raw, files = self._shards(root, shards)
        else:
            files = {f.stem: (f.relative_to(root).as_posix(), "", -1) for f in files_below(images, ENDINGS)}
        if manifest.is_file():
            raw = read_csv(manifest, required=COLUMNS)
        known = [bool(c and m) for c, m in zip(raw["biological_class"], raw["medical_center"], strict=True)]
        wanted = [i for i, s in enumerate(raw["subset"]) if o["subset"] == "all" or s != "OOD"]
        kept = [i for i in wanted if known[i]]
        patches = [f"{raw['slide_id'][i]}-{raw['patch_id'][i]}" for i in kept]
        absent = [p for p in patches if p not in files]
        if absent:
            raise DataError(
                f"{name}: {len(absent):,} of {len(patches):,} patches have no image in {shards[0].parent if shards else images}, such as {absent[0]}.png. Download them again."
            )
        again = [
            p for p, n in Counter((p, raw["subset"][i]) for i, p in zip(kept, patches, strict=True)).items() if n > 1
        ]
        if again:
            raise DataError(
                f"{name}: patch {again[0][0]} stands more than once in subset {again[0][1] or '(none)'}. Download the manifest again."
            )
        classes = tuple(sorted({raw["biological_class"][i] for i in kept}))
        several = len(set(patches)) < len(patches)
        rows: list[dict[str, Any]] = []
        for i, patch in zip(kept, patches, strict=True):
            source, key, row = files[patch]
            about = {"source": source, "key": key, "row": row, "subset": raw["subset"][i], "slide": raw["slide_id"][i]}
            about |= {"centre": raw["medical_center"][i], "label": classes.index(raw["biological_class"][i])}
            rows.append({**about, "id": f"{patch}@{raw['subset'][i]}" if several else patch})
        table = eosin.Table.of(rows, classes=classes)
        table.counts = {
            "patches": len(set(patches)),
            "slides": len(np.unique(table["slide"])),
            "centres": len(np.unique(table["centre"])),
        }
        left, blank = len(raw["subset"]) - len(wanted), len(wanted) - len(kept)
        table.warnings = [f"{left:,} rows of other centres (OOD) were left out"] if left else []
        table.warnings += [f"{blank:,} rows without a class or a centre were left out"] if blank else []
        table.watched = tuple(map(str, dict.fromkeys((root, manifest, images, *(s.parent for s in shards)))))
        return table

    def _shards(
        self, root: Path, shards: Sequence[Path]
    ) -> tuple[dict[str, list[str]], dict[str, tuple[str, str, int]]]:
        """The manifest's columns as parquet files have them, and where each patch's image lies: file, column, row."""
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise MissingError(f"{self.name}: {root} holds parquet files. Next: pip install 'eosin[parquet]'") from None
        raw: dict[str, list[str]] = {c: [] for c in COLUMNS}
        files: dict[str, tuple[str, str, int]] = {}
        for path in shards:
            try:
                columns = parquet.read_table(path, columns=list(COLUMNS)).to_pydict()
                if lost := [c for c in (*COLUMNS, "image") if c not in parquet.read_schema(path).names]:
                    raise ValueError(f"no column {', '.join(lost)}")
            except Exception as error:  # pyarrow's errors are its own
                raise DataError(
                    f"{self.name}: {path} cannot be read as PathoROB's ({error}). Download it again."
                ) from error
            for column, values in columns.items():
                raw[column] += ("" if v is None else str(v) for v in values)
            source = path.relative_to(root).as_posix()
            for row, (slide, patch) in enumerate(zip(columns["slide_id"], columns["patch_id"], strict=True)):
                files.setdefault(f"{slide}-{patch}", (source, "image", row))
        return raw, files
