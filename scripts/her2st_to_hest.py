"""Turn sections of her2st (spatial transcriptomics of HER2-positive breast cancer) into a task of HEST-Benchmark's shape.

    python scripts/her2st_to_hest.py HER2ST_FOLDER OUT/HER2ST
    bench run -m efficientnet-lite0 -b her2st --registry scripts/her2st.yaml --data OUT

HER2ST_FOLDER holds, for each section S, `S_HE.jpg`, `S_counts.tsv.gz` and `S_spots.tsv` (github.com/almaan/her2st; Andersson
et al. 2021, doi.org/10.1038/s41467-021-26271-2). What is done:

1. scale: spots lie 200 um apart; the pixels between them give um per pixel (about .69).
2. patches: 112 um about each spot, as 224 px, which is HEST's geometry; the photographs are enlarged by 1.4 for it.
3. spots: those with counts and a position, whose patch lies within the photograph.
4. genes: of those found in a tenth of the spots of every section (HEST's first step) the 50 whose log1p varies most, chosen
   on all sections. HEST's second step, normalised dispersion, picks genes of a few counts from data this shallow.
5. splits: one section left out at a time. Sections of one patient are alike: that is easier than another patient.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import sys
from pathlib import Path

import numpy as np

PITCH, PATCH, SIZE = 200.0, 112.0, 224  # um between spots, um and pixels of a patch
N_GENES, LEAST = 50, 0.1


def read_counts(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Spots, genes, and raw counts (spots, genes)."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file, delimiter="\t"))
    return [r[0] for r in rows], header[1:], np.array([r[1:] for r in rows], np.float32)


def read_spots(path: Path) -> dict[str, tuple[float, float, float, float]]:
    """{spot as XxY: position on the array (2), position in pixels (2)}."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    columns = ("new_x", "new_y", "pixel_x", "pixel_y")
    return {f"{int(r['x'])}x{int(r['y'])}": tuple(float(r[c]) for c in columns) for r in rows}  # type: ignore[misc]


def um_per_pixel(spots: dict[str, tuple[float, float, float, float]]) -> float:
    """From the slope of pixels over array positions, the mean of x and y."""
    at = np.array(list(spots.values()))
    slopes = [abs(np.polyfit(at[:, i], at[:, 2 + i], 1)[0]) for i in (0, 1)]
    return PITCH / float(np.mean(slopes))


def cut(path: Path, centres: np.ndarray, edge: float) -> tuple[np.ndarray, np.ndarray]:
    """Patches (n, 224, 224, 3) of `edge` pixels about the centres that allow it, and which these are (bool)."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = 2**28
    with Image.open(path) as picture:
        image = picture.convert("RGB")
    half = edge / 2
    whole = ((centres >= half) & (centres <= np.array(image.size) - half)).all(1)
    patches = []
    for x, y in centres[whole]:
        box = (x - half, y - half, x + half, y + half)
        patches.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)))
    return np.stack(patches), whole


def variable(counts: list[np.ndarray], genes: list[str], n: int = N_GENES) -> list[str]:
    """The n genes of highest variance of log1p among those found in a tenth of the spots of every section, in their order."""
    found = np.all([(c > 0).sum(0) >= math.ceil(LEAST * len(c)) for c in counts], axis=0)
    kept = [i for i in np.flatnonzero(found) if "BLANK" not in genes[i] and "Control" not in genes[i]]
    spread = np.log1p(np.concatenate([c[:, kept] for c in counts])).var(0)
    best = np.sort(np.argsort(-spread, kind="stable")[:n])
    return [genes[kept[i]] for i in best]


def convert(folder: Path, out: Path) -> None:
    """Write the task of all sections found in `folder`."""
    import h5py
    from anndata import AnnData

    sections = sorted(p.name.removesuffix("_HE.jpg") for p in folder.glob("*_HE.jpg"))
    if len(sections) < 2:
        sys.exit(f"{folder} holds {len(sections)} sections (S_HE.jpg); at least two are needed to leave one out.")
    for place in ("patches", "adata", "splits"):
        (out / place).mkdir(parents=True, exist_ok=True)
    read = {s: read_counts(folder / f"{s}_counts.tsv.gz") for s in sections}
    shared = sorted(set.intersection(*(set(genes) for _, genes, _ in read.values())))
    matrices = []
    for s, (names, genes, counts) in read.items():
        spots = read_spots(folder / f"{s}_spots.tsv")
        mpp = um_per_pixel(spots)
        column = {g: j for j, g in enumerate(genes)}
        matrix = counts[:, [column[g] for g in shared]]
        matrices.append(matrix)
        data = AnnData(matrix)
        data.obs_names, data.var_names = names, shared
        data.write_h5ad(out / "adata" / f"{s}.h5ad")
        both = [n for n in names if n in spots]
        centres = np.array([spots[n][2:] for n in both])
        patches, whole = cut(folder / f"{s}_HE.jpg", centres, PATCH / mpp)
        kept = [n for n, w in zip(both, whole, strict=True) if w]
        with h5py.File(out / "patches" / f"{s}.h5", "w") as file:
            file.create_dataset("img", data=patches, chunks=(1, SIZE, SIZE, 3))
            file.create_dataset("barcode", data=np.array(kept, object)[:, None], dtype=h5py.string_dtype())
            file["coords"] = np.round(centres[whole] - PATCH / mpp / 2).astype(int)
            edge = round(PATCH / mpp)
            file["img"].attrs.update(
                patch_size_src=edge, patch_size_target=SIZE, downsample=edge / SIZE, pixel_size=mpp
            )
        print(f"{s}: {len(kept)} patches of {len(names)} spots, {mpp:.3f} um per pixel")
    (out / "var_50genes.json").write_text(json.dumps({"genes": variable(matrices, shared)}), encoding="utf-8")
    for k, tested in enumerate(sections):
        for part, own in (("test", [tested]), ("train", [s for s in sections if s != tested])):
            with (out / "splits" / f"{part}_{k}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("sample_id", "patches_path", "expr_path"))
                writer.writerows((s, f"patches/{s}.h5", f"adata/{s}.h5ad") for s in own)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
