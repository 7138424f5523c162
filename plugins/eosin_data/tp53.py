"""TCGA-BRCA TP53: diagnostic slides of breast cancer, with a mutation of TP53 or without."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import eosin
from eosin.table import read_csv

from .official import Tree, options_of
from .wsi import TILING, tiles_of_slides

SLIDE = re.compile(
    r"(?P<patient>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})-(?P<sample>\d{2})(?P<vial>[A-Z])-(?P<portion>\d{2})-(?P<kind>DX|TS|BS|MS)(?P<n>[0-9A-Z]+)"
    r"(?:\.(?P<uuid>[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}))?\.svs"
)
BARCODE = re.compile(r"(?:[a-z_0-9]+:)?(?P<name>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?:-[0-9A-Z.-]*)?)", re.IGNORECASE)
CLASSES = ("wild-type", "mutant")
KEYS = ("slide_id", "slide", "sample_id", "sampleid", "sample", "patient_id", "patientid", "patient", "case_id")
VALUES = {
    "0": 0,
    "1": 1,
    "0.0": 0,
    "1.0": 1,
    "wt": 0,
    "wild-type": 0,
    "wildtype": 0,
    "mut": 1,
    "mutant": 1,
    "mutated": 1,
}
UNKNOWN = {"", "na", "nan", "ns", "not profiled", "not sequenced"}  # absent is not wild-type
PROTEIN = re.compile(
    r"(?:p\.)?[A-Z*]\d+\S*|[XE]\d+_splice\S*", re.IGNORECASE
)  # R175H, R213*, X126_splice: cBioPortal's
PAPER, POOL = 511, 1_133


class Tp53(eosin.Dataset):
    """Slides `TCGA-…-DX1.<uuid>.svs`, flat or as gdc-client leaves them, joined with a table of labels that you give.

    Rows of the table name a slide, a sample (its first 15 characters) or a patient (12), tried in this order; slides without a
    label are left out. Options: `labels` (labels.csv) and `exclude` (exclude.txt: names, one a line, of the slides a model was
    distilled on), relative to the root; `column` TP53; `overlap`: what to do with a patient on both lists, refuse or drop;
    `kinds` [DX]; and how slides are tiled.
    """

    kind = "tp53"
    on_slides = True
    defaults = {
        "labels": "labels.csv",
        "exclude": "exclude.txt",
        "column": "TP53",
        "overlap": ("refuse", "drop"),
        "kinds": ["DX"],
    }

    def items(self, root: Path) -> eosin.Table:
        tree, o = Tree(self, root), options_of(self, {**self.defaults, **TILING})
        labels = _labels(tree, root / o["labels"], o["column"])
        barred = _barred(tree, root / o["exclude"], labels, o)
        slides = _slides(tree, o["kinds"])
        rows, unlabelled, dropped = [], 0, 0
        for stem, (file, name) in slides.items():
            label = next((labels[k] for k in (stem, stem[:15], stem[:12]) if k in labels), None)
            if name["patient"].upper() in barred:
                dropped += 1
            elif label is None:
                unlabelled += 1
            else:
                rows.append(
                    {
                        "id": file.name.removesuffix(".svs"),
                        "source": tree.relative(file),
                        "label": label,
                        "group": name["patient"],
                        "slide": file.name.partition(".")[0],
                        "centre": name["patient"][5:7],
                    }
                )
        tree.note(unlabelled, "slides have no label and were left out: absent is not wild-type")
        tree.note(dropped, f"slides are of patients in {o['exclude']} and were left out")
        _one_label_a_patient(tree, rows)
        tree.compare(len(slides), POOL, "diagnostic slides")
        tree.warnings.append(f"G2L took {PAPER} slides and gives neither their list nor the rule of `mutant`")
        return tree.table(rows, CLASSES, patients=len({r["group"] for r in rows}))

    def tiles(self, root: Path, items: eosin.Table) -> eosin.Table:
        return tiles_of_slides(self, root, items)


def _labels(tree: Tree, path: Path, column: str) -> dict[str, int]:
    """{slide, sample or patient, upper case: label}."""
    if path.suffix.lower() in (".pickle", ".pkl", ".npy"):
        raise tree.fail(
            f"{path} is a pickle, which may run code when it is read. Write it as csv with the columns slide_id (or patient_id) and {column}."
        )
    if not path.is_file():
        raise tree.fail(
            f"no table of labels at {path}. Write a csv there with the columns slide_id (or sample_id, patient_id) and {column} (0 or 1); "
            f"cBioPortal's mutation table of brca_tcga_pan_can_atlas_2018 will do. Another name: options: {{labels: …}}."
        )
    raw = _columns(tree, path)
    low = {name.lower(): name for name in raw}
    key = next((low[k] for k in KEYS if k in low), None)
    value = low.get(column.lower())
    if key is None or value is None:
        need = f"slide_id, sample_id or patient_id, and {column}"
        raise tree.fail(f"{path}: needs the columns {need}; there are {', '.join(raw)}. Rename them.")
    labels: dict[str, int] = {}
    for line, (name, text) in enumerate(zip(raw[key], raw[value], strict=True), start=2):
        found = BARCODE.fullmatch(name)
        if found is None:
            raise tree.fail(f"{path}, line {line}: {name!r} is no TCGA barcode. Correct it.")
        if text.lower() in UNKNOWN:
            continue
        label = VALUES.get(text.lower(), 1 if all(PROTEIN.fullmatch(w) for w in re.split("[, ]+", text)) else None)
        if label is None:
            raise tree.fail(f"{path}, line {line}: {column} is {text!r}, not 0 or 1. Correct it; empty is unknown.")
        name = _key(found["name"])
        if labels.setdefault(name, label) != label:
            raise tree.fail(
                f"{path}, line {line}: {name} is {CLASSES[label]} here and {CLASSES[1 - label]} above. Keep one."
            )
    return labels


def _columns(tree: Tree, path: Path) -> dict[str, list[str]]:
    """The table's columns; cBioPortal separates them by tabs."""
    lines = tree.watch(path).read_text("utf-8-sig", errors="replace").splitlines()
    if not lines or "\t" not in lines[0]:
        return read_csv(path)
    rows = [line.split("\t") for line in lines if line.strip()]
    ragged = [n for n, row in enumerate(rows, 1) if len(row) != len(rows[0])]
    if ragged:
        raise tree.fail(
            f"{path}, row {ragged[0]}: not as many values as the {len(rows[0])} columns. Download it again."
        )
    return {name.strip(): [v.strip() for v in values] for name, *values in zip(*rows, strict=True)}


def _key(name: str) -> str:
    """A slide's name without its uuid, or a sample's without its vial, in upper case (portals spell them either way)."""
    name = name.upper().partition(".")[0]
    return name[:15] if len(name) == 16 else name


def _barred(tree: Tree, path: Path, labels: dict[str, int], o: dict[str, Any]) -> set[str]:
    """The patients of the exclusion list; DataError when one of them has a label too, unless such are to be dropped."""
    if not path.is_file():
        if o["exclude"] != tree.dataset.defaults["exclude"]:  # type: ignore[attr-defined]
            raise tree.fail(f"no exclusion list at {path}. Correct options: {{exclude: …}}.")
        tree.warnings.append(f"no {o['exclude']}: slides that a model was distilled on may be among these")
        return set()
    barred = set()
    for line, text in enumerate(tree.watch(path).read_text("utf-8").splitlines(), start=1):
        name = text.partition("#")[0].replace("\\", "/").rpartition("/")[2].strip()
        found = BARCODE.fullmatch(name)
        if found is None and name:
            raise tree.fail(f"{path}, line {line}: {name!r} is no TCGA slide or patient. Correct it.")
        if found:
            barred.add(found["name"][:12].upper())
    both = sorted(barred & {name[:12] for name in labels})
    if both and o["overlap"] == "refuse":
        raise tree.fail(
            f"{len(both)} patients are in {o['labels']} and in {o['exclude']}, such as {both[0]}: a model would be tested on patients it "
            "was distilled on. Take them out of the labels, or set options: {overlap: drop}."
        )
    return barred


def _slides(tree: Tree, kinds: Any) -> dict[str, tuple[Path, re.Match[str]]]:
    """{stem in upper case, without the uuid: (file, its parsed name)} of the slides of these kinds, primary tumours only."""
    tree.find(lambda f: bool(tree.files(f, (".svs",))))
    slides: dict[str, tuple[Path, re.Match[str]]] = {}
    other = 0
    for folder in tree.below():
        for file in tree.files(folder, (".svs",)):  # gdc-client's *.partial are no slides yet
            found = SLIDE.fullmatch(file.name)
            if found is None:
                raise tree.odd(file, "TCGA-XX-XXXX-01Z-00-DX1[.<uuid>].svs")
            if found["kind"] not in kinds or found["sample"] != "01":
                other += 1
                continue
            stem = file.name.partition(".")[0].upper()
            if stem in slides:
                raise tree.fail(f"{file} and {slides[stem][0]} are one and the same slide. Remove one of them.")
            slides[stem] = file, found
    tree.note(
        other,
        f"slides are not {' or '.join(kinds)} of a primary tumour (frozen sections, metastases) and were passed over",
    )
    return slides


def _one_label_a_patient(tree: Tree, rows: list[dict[str, Any]]) -> None:
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        before = first.setdefault(row["group"], row)
        if before["label"] != row["label"]:
            raise tree.fail(
                f"patient {row['group']} is {CLASSES[before['label']]} by {before['slide']} and {CLASSES[row['label']]} by {row['slide']}. Correct the labels."
            )
