"""IDC: 50 x 50 px patches of breast tissue, `<patient>/{0,1}/<patient>_idx5_x_y_class{0,1}.png`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import eosin
from eosin.dataset import folders_below, names_below
from eosin.errors import DataError

NAME = re.compile(r"(?P<pid>\d+)_idx(?P<idx>\d+)_x(?P<x>\d+)_y(?P<y>\d+)_class(?P<label>[01])\.png")
NESTED = "IDC_regular_ps50_idx5"
OFFICIAL = 277_524


class Idc(eosin.Dataset):
    """Patient is the folder, label is both the sub-folder and part of the name; they must agree.

    The public archive holds a second copy of all patients in `IDC_regular_ps50_idx5`: only one of the two is read.
    """

    kind = "idc"

    def downloads(self) -> list[tuple[str, str, str]]:
        """The authors' own archive, which needs no account."""
        return [(f"http://gleason.case.edu/webdata/jpi-dl-tutorial/{NESTED}.zip", f"{NESTED}.zip", "")]

    def items(self, root: Path) -> eosin.Table:
        root_below, warnings = _one_copy(root)
        rows, odd = [], 0
        patients = [f for f in folders_below(root_below) if f.name.isdigit()]
        watched = [str(root), str(root_below)]
        for patient in patients:
            for folder in folders_below(patient):
                if folder.name not in ("0", "1"):
                    raise DataError(
                        f"idc: {folder} is neither 0 nor 1. Expected <patient>/0 and <patient>/1; move it away."
                    )
                watched.append(str(folder))
                names, place = names_below(folder), folder.relative_to(root).as_posix()
                tiles = [n for n in names if n.lower().endswith(".png")]
                rows += [_row(n, folder, place, patient.name) for n in tiles]
                odd += len(names) - len(tiles)
        if not rows:
            raise DataError(
                f"idc: {root} holds no <patient>/<0 or 1>/<patient>_idx5_x…_y…_class….png. `bench data where idc` shows the layout."
            )
        if len(rows) > OFFICIAL:
            raise DataError(
                f"idc: {len(rows):,} patches, more than the official {OFFICIAL:,}: the folder holds a copy. Keep one of them."
            )
        if len(rows) < OFFICIAL:
            warnings.append(f"{len(rows):,} patches of the official {OFFICIAL:,}: a subset or a partial download")
        if odd:
            warnings.append(f"{odd} files that are not png were passed over")
        warnings.append(
            "50 px patches at about 4 um/px are enlarged to the model's input: far from the scale that models were trained at"
        )
        table = eosin.Table.of(
            rows, classes=("IDC-negative", "IDC-positive"), warnings=warnings, watched=tuple(watched)
        )
        table.counts = {
            "patient_folders": len(patients),
            "negative": int((table["label"] == 0).sum()),
            "positive": int((table["label"] == 1).sum()),
        }
        table.columns["mpp"] = np.full(len(table), self.card.mpp if self.card.mpp else np.nan)
        return table


def _one_copy(root: Path) -> tuple[Path, list[str]]:
    """The folder whose patients are read: the root's own, else the nested copy, else one folder further down."""
    for place in (root, root / NESTED, *folders_below(root)):
        if place.is_dir() and any(f.name.isdigit() for f in folders_below(place)):
            both = place == root and (root / NESTED).is_dir()
            return place, ([f"{NESTED} is a second copy of all patients and was passed over"] if both else [])
    return root, []


def _row(name: str, folder: Path, place: str, patient: str) -> dict[str, object]:
    """One patch: `folder` is where it lies, `place` the same relative to the root."""
    found = NAME.fullmatch(name)
    if found is None:
        raise DataError(
            f"idc: {folder / name} does not match <patient>_idx5_x<X>_y<Y>_class<0|1>.png. Move it away, or copy it again."
        )
    if found["label"] != folder.name:
        raise DataError(
            f"idc: {folder / name} lies in folder {folder.name} and its name says class {found['label']}. One is wrong; correct or remove it."
        )
    if found["pid"] != patient:
        raise DataError(
            f"idc: {folder / name} lies in the folder of patient {patient} and its name says {found['pid']}. One is wrong; correct or remove it."
        )
    return {
        "id": name[:-4],
        "source": f"{place}/{name}",
        "label": int(found["label"]),
        "group": patient,
        "slide": patient,
    }
