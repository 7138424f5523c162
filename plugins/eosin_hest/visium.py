"""One section of spatial transcriptomics as other tools leave it: an AnnData file and the image its spots lie on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import eosin
from eosin.dataset import files_below
from eosin.errors import CardError, DataError
from eosin.pixels import opened

from .counts import about, open_h5ad

SPOT = 55.0  # um: a spot of Visium
DEFAULTS = {"um": 112.0, "genes": 50}


class Visium(eosin.Dataset):
    """A folder with one `.h5ad` (`obsm["spatial"]`: x and y in pixels of the image) and one image.

    An item is a spot: `um` micrometres of the image about it. The scale is the card's `mpp`, else it follows from
    `spot_diameter_fullres`. `target` is log1p of the counts of the `genes` genes that vary most, or the values as they are
    where they are no counts any more. There is one slide, so that folds must come from elsewhere.
    """

    kind = "visium"

    def items(self, root: Path) -> eosin.Table:
        options = {**DEFAULTS, **self.card.options}
        wrong = [k for k in options if k not in DEFAULTS]
        if wrong:
            raise CardError(f"dataset {self.name}: no option {', '.join(wrong)}. Its options: {', '.join(DEFAULTS)}.")
        path, picture = self._one(root, (".h5ad",)), self._one(root, (".jpg", ".jpeg", ".png", ".tif", ".tiff"))
        data = open_h5ad(path)
        if data.X is None or "spatial" not in data.obsm:
            raise DataError(f"{path} lacks {'X' if data.X is None else 'obsm spatial'}, which the spots need.")
        mpp = self.card.mpp or _mpp(path, data)
        edge = max(1, round(float(options["um"]) / mpp))
        corner = np.round(np.asarray(data.obsm["spatial"], float)[:, :2] - edge / 2).astype(np.int64)
        inside = ((corner >= 0) & (corner + edge <= _size(picture))).all(1)
        if not inside.any():
            raise DataError(
                f"{path}: no spot of {edge} px lies on {picture.name}. Do they belong together? `mpp` may be wrong."
            )
        values = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
        odd, values = about(values), values.astype(np.float64)
        target = values if odd else np.log1p(values)
        best = np.sort(np.argsort(-target[inside].var(0), kind="stable")[: int(options["genes"])])
        warnings = [f"X has {odd}: the target is X as it is, not log1p of counts"] if odd else []
        if not inside.all():
            warnings.append(f"{int((~inside).sum())} spots at the border of the image were left out")
        n = int(inside.sum())
        constant = {"w": edge, "h": edge, "mpp": mpp, "source": picture.name, "slide": path.stem}
        return eosin.Table(
            {"id": np.asarray(data.obs_names, str)[inside], "x": corner[inside, 0], "y": corner[inside, 1]}
            | {k: np.full(n, v) for k, v in constant.items()},
            target=target[inside][:, best].astype(np.float32),
            target_names=tuple(str(data.var_names[j]) for j in best),
            warnings=warnings,
            watched=(str(root), str(path)),
        )

    def _one(self, root: Path, suffixes: tuple[str, ...]) -> Path:
        found = list(files_below(root, suffixes)) if root.is_dir() else []
        if len(found) != 1:
            raise DataError(f"{self.name}: {root} holds {len(found)} files {' '.join(suffixes)}, and should hold one.")
        return found[0]


def _mpp(path: Path, data: Any) -> float:
    """um per pixel of the image on which the spots lie."""
    for library in dict(data.uns.get("spatial", {})).values():
        diameter = float(dict(library.get("scalefactors", {})).get("spot_diameter_fullres", 0))
        if diameter > 0:
            return SPOT / diameter
    raise DataError(f"{path} does not say how many pixels a spot has. Give the card `mpp:`, um per pixel of the image.")


def _size(path: Path) -> tuple[int, int]:
    try:
        with opened(path) as image:
            return image.size
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}). Copy it again.") from error
