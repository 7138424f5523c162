"""BreaKHis: 700 x 460 px fields of breast tumours, each slide at four magnifications."""

from __future__ import annotations

import re
from pathlib import Path

import eosin

from .official import Tree, options_of
from .regions import region_tiles

NAME = re.compile(
    r"SOB_(?P<cls>[BM])_(?P<type>A|F|PT|TA|DC|LC|MC|PC)-(?P<year>\d{2})-(?P<slide>\d+[A-Z]*)"
    r"-(?P<mag>40|100|200|400)-(?P<seq>\d{3})\.png"
)
FORM = "SOB_<B|M>_<type>-<year>-<slide>-<magnification>-<number>.png"
TYPES = {
    "A": "adenosis", "F": "fibroadenoma", "PT": "phyllodes_tumor", "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma", "LC": "lobular_carcinoma", "MC": "mucinous_carcinoma", "PC": "papillary_carcinoma",
}  # fmt: skip
SIDES = {"B": "benign", "M": "malignant"}
BENIGN = ("A", "F", "PT", "TA")
MPP = {"40": 0.49, "100": 0.20, "200": 0.10, "400": 0.05}  # what the images show, not the objective's name
OFFICIAL = 7_909


class BreakHis(eosin.Dataset):
    """`.../breast/<benign|malignant>/SOB/<type>/<slide>/<magnification>X/*.png`, read from the file names.

    The label is one of eight types; the columns `binary` and `magnification` serve the other readings. The group is the
    slide's number without its letters (14-22549AB and 14-22549CD may be one patient), over all magnifications and both
    classes: slide 14-13412 stands under ductal and lobular with the same images. Options: `tile` px, `pad` white or drop.
    """

    kind = "breakhis"
    defaults = {"tile": 224, "pad": ("white", "drop")}

    def downloads(self) -> list[tuple[str, str, str]]:
        return [("http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz", "BreaKHis_v1.tar.gz", "")]

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        breast = tree.find(_is_breast, depth=4)
        copies = [f for f in tree.below(depth=4) if f != breast and _is_breast(f)]
        tree.warnings += [f"{tree.relative(f)} is a second copy and was passed over" for f in copies]
        seen: dict[tuple, Path] = {}
        rows = [
            _row(tree, file, side, kind, magnification, seen)
            for side in SIDES.values()
            for kind in (tree.folders(breast / side / "SOB") if (breast / side).is_dir() else [])
            for magnification, file in _images(tree, kind)
        ]
        tree.compare(len(rows), OFFICIAL, "images")
        types: dict[tuple[str, str], set[str]] = {}
        for row in rows:
            types.setdefault((str(row["slide"]), str(row["magnification"])), set()).add(str(row["subtype"]))
        both = sorted({slide for (slide, _), found in types.items() if len(found) > 1})
        tree.warnings += [
            f"slide {slide} stands under two types; its images carry contradictory labels" for slide in both
        ]
        counts = {m: sum(r["magnification"] == m for r in rows) for m in MPP}
        counts |= {s: sum(r["binary"] == s for r in rows) for s in SIDES.values()}
        counts["patient_folders"] = len({(r["subtype"], r["slide"]) for r in rows})
        return tree.table(rows, tuple(TYPES.values()), **counts)

    def tiles(self, root: Path, items: eosin.Table) -> eosin.Table:
        return region_tiles(self, root, items, options_of(self, self.defaults))


def _is_breast(folder: Path) -> bool:
    return any((folder / side / "SOB").is_dir() for side in SIDES.values())


def _images(tree: Tree, kind: Path) -> list[tuple[str, Path]]:
    """(magnification of the folder, file) of one type."""
    found = [
        (folder.name.rstrip("Xx"), file)
        for slide in tree.folders(kind)
        for folder in tree.folders(slide)
        for file in tree.files(folder)
    ]
    if not found:
        raise tree.fail(f"{kind} holds no images. Unpack the archive again, or remove the folder.")
    return found


def _row(
    tree: Tree, file: Path, side: str, kind: Path, magnification: str, seen: dict[tuple, Path]
) -> dict[str, object]:
    name = NAME.fullmatch(file.name)
    if name is None:
        raise tree.odd(file, FORM)
    code, subtype = name["type"], TYPES[name["type"]]
    for folder, says in ((side, SIDES[name["cls"]]), (kind.name, subtype), (magnification, name["mag"])):
        if folder != says:
            raise tree.disagree(file, f"it lies under {folder}", f"its name says {says}")
    if (code in BENIGN) != (name["cls"] == "B"):
        raise tree.disagree(file, f"its name says {SIDES[name['cls']]}", f"{subtype} is not")
    tree.once(seen, (code, name["year"], name["slide"], name["mag"], name["seq"]), file)
    return {
        "id": file.stem,
        "source": tree.relative(file),
        "label": list(TYPES).index(code),
        "group": f"{name['year']}-{name['slide'].rstrip('ABCDEFGHIJKLMNOPQRSTUVWXYZ')}",
        "slide": f"{name['year']}-{name['slide']}",
        "mpp": MPP[name["mag"]],
        "magnification": name["mag"],
        "binary": side,
        "subtype": subtype,
    }
