"""BRACS: 4,539 regions of interest of breast tissue, seven classes from normal to invasive."""

from __future__ import annotations

import re
from pathlib import Path

import eosin

from .official import Tree, options_of
from .regions import region_tiles
from .sheet import read_sheet

NAME = re.compile(r"BRACS_(?P<wsi>\d+)_(?P<label>N|PB|UDH|FEA|ADH|DCIS|IC)_(?P<k>\d+)\.png")
CLASSES = ("N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC")
FOLDERS = tuple(f"{i}_{c}" for i, c in enumerate(CLASSES))
SPLITS = ("train", "val", "test")
TABLE, SHEET = "BRACS.xlsx", "WSI_Information"
OFFICIAL, PAPER = 4_539, 4_537


class Bracs(eosin.Dataset):
    """`latest_version/<split>/<0_N … 6_IC>/BRACS_<slide>_<class>_<number>.png`.

    The group is the patient from BRACS.xlsx where that is found, else the slide: a slide's number is no patient's number.
    Options: `tile` px, `pad` white or drop.
    """

    kind = "bracs"
    defaults = {"tile": 224, "pad": ("white", "drop")}

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        top = tree.find(
            lambda f: f.name != "previous_versions" and _is_version(f) and f.parent.name != "previous_versions"
        )
        patients = _patients(tree, top)
        seen: dict[tuple, Path] = {}
        rows = []
        for split in SPLITS:
            for folder in tree.folders(top / split) if (top / split).is_dir() else []:
                if folder.name not in FOLDERS:
                    raise tree.fail(f"{folder} is none of {', '.join(FOLDERS)}. Move it away.")
                files = tree.files(folder)
                if not files:
                    raise tree.fail(f"{folder} is empty. Copy it again, or remove it.")
                rows += [_row(tree, file, split, folder.name, seen, patients) for file in files]
        tree.compare(len(rows), OFFICIAL, "regions")
        tree.warnings.append(f"G2L says {PAPER:,} regions; the official number is {OFFICIAL:,}, and nobody says why")
        if not patients:
            tree.warnings.append(f"no {TABLE}: the group is the slide, and several slides may be one patient's")
        counts = {"slides": len({r["slide"] for r in rows})}
        if patients:
            counts["patients"] = len({r["group"] for r in rows})
        return tree.table(rows, CLASSES, **counts)

    def tiles(self, root: Path, items: eosin.Table) -> eosin.Table:
        return region_tiles(self, root, items, options_of(self, self.defaults))


def _is_version(folder: Path) -> bool:
    """Whether it holds splits of class folders."""
    return any((folder / split / name).is_dir() for split in SPLITS for name in FOLDERS)


def _row(tree: Tree, file: Path, split: str, folder: str, seen: dict, patients: dict[str, str]) -> dict[str, object]:
    name = NAME.fullmatch(file.name)
    if name is None:
        raise tree.odd(file, "BRACS_<slide>_<class>_<number>.png")
    if folder != f"{CLASSES.index(name['label'])}_{name['label']}":
        raise tree.disagree(file, f"it lies under {folder}", f"its name says {name['label']}")
    tree.once(seen, file.name, file)
    wsi = name["wsi"]
    if patients and wsi not in patients:
        raise tree.fail(f"{file}: slide BRACS_{wsi} is not in {TABLE}. Download the table again, or take it away.")
    return {
        "id": file.stem,
        "source": tree.relative(file),
        "label": CLASSES.index(name["label"]),
        "split": split,
        "group": patients.get(wsi, f"BRACS_{wsi}"),
        "slide": f"BRACS_{wsi}",
    }


def _patients(tree: Tree, top: Path) -> dict[str, str]:
    """{slide number: patient} from BRACS.xlsx beside or above the regions; {} without it."""
    places = [top, *(p for p in top.parents if p == tree.root or tree.root in p.parents)]
    found = [p / TABLE for p in places if (p / TABLE).is_file()]
    if not found:
        return {}
    path = tree.watch(found[0])
    rows = read_sheet(path, SHEET)
    for number, row in enumerate(rows):
        heads = [re.sub("[^a-z]", "", cell.lower()) for cell in row]
        slide = next((i for i, h in enumerate(heads) if h.startswith("wsi") and "name" in h), None)
        patient = next((i for i, h in enumerate(heads) if h.startswith("patient")), None)
        if slide is not None and patient is not None:
            pairs = [(r[slide], r[patient]) for r in rows[number + 1 :] if len(r) > max(slide, patient)]
            return {
                m[1]: f"patient-{p.removesuffix('.0')}" for s, p in pairs if (m := re.match(r"BRACS_(\d+)", s)) and p
            }
    raise tree.fail(
        f"{path}: no columns for the slide's file name and the patient id are in sheet {SHEET}. Take the file away to group by slide."
    )
