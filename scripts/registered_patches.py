"""Registered patches around matching landmarks, as a dataset that PLISM's protocols take. No pixel is copied.

    python scripts/registered_patches.py IMAGES LANDMARKS OUT --scale 0.1 --side 48

IMAGES holds one image a section, LANDMARKS one csv a section (columns number, X, Y; row i of each is the same place), named
`<annotator>…<stem of the image>.csv`. Writes OUT/patches.csv (boxes of the images: slide, stain, tile) and OUT/registry.yaml, for

    bench run --model color-stats --benchmark patches-plism --registry OUT/registry.yaml
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

from PIL import Image

CARD = """datasets:
  patches: {{kind: manifest, root: "{root}", table: patches.csv}}
benchmarks:
  patches-plism: {{dataset: patches, protocol: plism-leaderboard@1, metric: cosine, options: {{n_tiles: 0}}}}
"""


def landmarks(path: Path, scale: float) -> dict[str, tuple[float, float]]:
    """{number: (x, y)} in pixels of the image."""
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle))[1:]
    return {number.strip(): (float(x) * scale, float(y) * scale) for number, x, y in rows}


def patches(images: Path, marks: Path, annotator: str, scale: float, side: int) -> list[dict[str, object]]:
    """One row a section and landmark; a landmark whose patch would leave an image is left out of all sections."""
    sections = sorted(p for p in images.iterdir() if p.suffix.lower() in (".jpg", ".png", ".tif"))
    stems = [p.stem for p in sections]
    start = len(os.path.commonprefix(stems))
    end = len(os.path.commonprefix([s[::-1] for s in stems]))
    corners: list[dict[str, tuple[int, int]]] = []
    for path in sections:
        files = sorted(marks.glob(f"{annotator}*{path.stem}.csv"))
        if len(files) != 1:
            raise SystemExit(
                f"{len(files)} files {annotator}*{path.stem}.csv in {marks}: there must be one. Name the annotator."
            )
        size = Image.open(path).size
        found = {n: (round(x - side / 2), round(y - side / 2)) for n, (x, y) in landmarks(files[0], scale).items()}
        corners.append({n: c for n, c in found.items() if min(c) >= 0 and all(v + side <= s for v, s in zip(c, size))})
    common = [n for n in corners[0] if all(n in c for c in corners)]
    return [
        {
            "path": path.name,
            "x": own[n][0],
            "y": own[n][1],
            "w": side,
            "h": side,
            "slide": stem,
            "stain": stem,
            "tile": n,
        }
        for path, own, stem in zip(sections, corners, [s[start : len(s) - end] for s in stems])
        for n in common
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("images", "landmarks", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--annotator", default="user-PS", help="what the csv files of one person begin with")
    parser.add_argument("--scale", type=float, default=1.0, help="pixels of the image per unit of the landmarks")
    parser.add_argument("--side", type=int, default=48, help="side of a patch in pixels")
    o = parser.parse_args()
    rows = patches(o.images, o.landmarks, o.annotator, o.scale, o.side)
    if not rows:
        raise SystemExit(
            f"No landmark has a patch of {o.side} px on every section. Give a smaller --side, or another --scale."
        )
    o.out.mkdir(parents=True, exist_ok=True)
    with open(o.out / "patches.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (o.out / "registry.yaml").write_text(CARD.format(root=o.images.resolve().as_posix()), encoding="utf-8")
    sections = len({r["slide"] for r in rows})
    print(f"{len(rows) // sections} places on {sections} sections: {o.out / 'patches.csv'}")


if __name__ == "__main__":
    main()
