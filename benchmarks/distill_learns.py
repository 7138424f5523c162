"""Does a student learn, on real tissue? CKA to the teacher and a kNN score, before and after a few minutes on a processor.

    python benchmarks/distill_learns.py FOLDER … [--recipe g2l|h0-mini] [--steps 500] [--vit FILE]

Each FOLDER holds images and labels.csv (path, and label or class); none may be a benchmark of yours. Images are cut into
squares of `--cut` pixels; half of the images are learned from, the other half only looked at: CKA to the teacher on their
squares, and the vote of five neighbours, none of them of the same fifth of the images. g2l: EfficientNet-Lite0 (ImageNet)
teaches; h0-mini: a small DINOv2 ViT (`--vit`, a file of weights for vit_small_patch14_dinov2 with eight blocks), with
prototypes. The student is a random ViT of four blocks. Intervals are 95 % bootstraps over images.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eosin import metrics, probes
from eosin.plugins import Catalogue
from eosin.watchtower import embedded

SIDE = {"g2l": 96, "h0-mini": 98}
READOUTS = {"g2l": "cls", "h0-mini": "cls+mean"}
ROWS = """
models:
  teacher: {teacher}
  pupil: {{kind: timm, arch: {arch}, arch_options: {{img_size: {side}, depth: 4, embed_dim: 192, num_heads: 3, dynamic_img_size: true}}, size: {side}, seed: 1, readout: {readout}, mean: {mean}, std: {std}}}
"""
TEACHERS = {
    "g2l": "{{kind: timm, arch: tf_efficientnet_lite0, weights: 'package:{package}', key_map: efficientnet_pytorch, size: {side}, mean: [.5, .5, .5], std: [.5, .5, .5]}}",
    "h0-mini": "{{kind: timm, arch: vit_small_patch14_dinov2, arch_options: {{depth: 8, dynamic_img_size: true}}, weights: {vit}, size: {side}, readout: cls+mean}}",
}
ARCHS = {"g2l": "vit_tiny_patch16_224", "h0-mini": "vit_small_patch14_dinov2"}
OPTIONS: dict[str, dict[str, Any]] = {
    "g2l": {"crop": 96, "lr": 1e-3, "stop": "off"},
    "h0-mini": {
        "teacher_head": "prototypes", "class_prototypes": 256, "patch_prototypes": 512, "prototypes": 512, "hidden": 256,
        "local_crops": 0, "global_size": 98, "fit_tiles": 512, "epochs": 20, "warmup_epochs": 1, "temperature_epochs": 2, "lr": 0.006,
        "ema": 0.9, "ema_end": 0.99, "layer_decay": 1.0, "patch_embed_lr": 1.0, "global_scale": 0.6, "jitter": 0.2, "grey": 0.0, "solarise": 0.0,
        "blur_first": 0.1,
    },
}  # fmt: skip


def squares(folder: Path, cut: int, most: int, side: int) -> tuple[list[Image.Image], np.ndarray, np.ndarray]:
    """(squares of at most `most` images, in a random order, shrunk to `side` pixels; the image of each; its label)."""
    with open(folder / "labels.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    images, image, label = [], [], []
    for i in np.random.default_rng(0).permutation(len(rows))[:most]:
        whole = Image.open(folder / rows[i]["path"]).convert("RGB")
        for y in range(0, whole.height - cut + 1, cut) or [0]:
            for x in range(0, whole.width - cut + 1, cut) or [0]:
                part = whole.crop((x, y, min(x + cut, whole.width), min(y + cut, whole.height)))
                images.append(part.resize((side, side), Image.Resampling.BICUBIC))
                image.append(i)
                label.append(rows[i].get("class") or rows[i]["label"])
    number = {i: n for n, i in enumerate(dict.fromkeys(image))}
    return images, np.array([number[i] for i in image]), np.unique(label, return_inverse=True)[1]


def bootstrapped(values, image: np.ndarray, times: int = 100) -> str:
    """The value of all rows, and its interval when images are drawn again."""
    rng, names = np.random.default_rng(0), np.unique(image)
    of = [np.flatnonzero(image == n) for n in names]
    drawn = [values(np.concatenate([of[i] for i in rng.integers(0, len(of), len(of))])) for _ in range(times)]
    return f"{values(np.arange(len(image))):.3f} ({np.quantile(drawn, 0.025):.3f} to {np.quantile(drawn, 0.975):.3f})"


def voted(X: np.ndarray, image: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) whether five neighbours, of other images, vote for the right label."""
    hit = np.empty(len(y))
    for k in range(5):
        test = image % 5 == k
        hit[test] = probes.knn(5, "cosine").fit(X[~test], y[~test]).predict(X[test]) == y[test]
    return hit


def judged(X: dict[str, np.ndarray], image: np.ndarray, y: np.ndarray) -> dict[str, dict[str, str]]:
    """CKA (debiased) to the teacher and kNN accuracy of each model, and what came of the lesson, on the same images."""

    def cka(of: str, rows: np.ndarray) -> float:
        rows = np.unique(rows)  # the same square twice would count as a pair
        return metrics.cka(X["teacher"][rows], X[of][rows], debiased=True)

    hit = {of: voted(own, image, y) for of, own in X.items()}
    rows = {of: (lambda rows, of=of: cka(of, rows), lambda rows, of=of: float(hit[of][rows].mean())) for of in X}
    rows["gain"] = tuple(
        lambda rows, a=a, b=b: a(rows) - b(rows) for a, b in zip(rows["after"], rows["before"], strict=True)
    )
    return {
        of: {name: bootstrapped(v, image) for name, v in zip(("CKA", "kNN"), values)} for of, values in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--recipe", choices=list(OPTIONS), default="g2l")
    parser.add_argument("--vit", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--cut", type=int, default=256)
    parser.add_argument("--most", type=int, default=800, help="Images of one folder.")
    parser.add_argument("--option", action="append", default=[])
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    looked, side = {}, SIDE[args.recipe]
    for folder in args.folders:
        images, image, y = squares(folder, args.cut, args.most, side)
        (work / "tiles" / folder.name).mkdir(parents=True)
        for i in np.flatnonzero(image % 2 == 0):
            images[i].save(work / "tiles" / folder.name / f"{i}.png")
        kept = np.flatnonzero(image % 2)
        looked[folder.name] = [images[i] for i in kept], image[kept] // 2, y[kept]
    package = Catalogue().models.things["efficientnet-lite0"].card.weights.removeprefix("package:")
    row = {
        "teacher": TEACHERS[args.recipe].format(package=package, side=side, vit=args.vit), "arch": ARCHS[args.recipe],
        "side": side, "readout": READOUTS[args.recipe], "mean": [0.7, 0.58, 0.7], "std": [0.21, 0.23, 0.18],
    }  # fmt: skip
    (work / "registry.yaml").write_text(ROWS.format(**row))
    catalogue, out = Catalogue([work / "registry.yaml"]), work / "run"
    options = [f"{k}={v}" for k, v in OPTIONS[args.recipe].items()] + args.option
    command = [
        sys.executable, "-m", "eosin.cli", "distill", args.recipe, "--teacher", "teacher", "--student", "pupil", "--tiles", work / "tiles",
        "--out", out, "--steps", args.steps, "--batch-size", args.batch_size, "--registry", work / "registry.yaml", "--json",
        *(word for option in options for word in ("--option", option)),
    ]  # fmt: skip
    done = subprocess.run([str(w) for w in command], stdout=subprocess.PIPE, text=True, check=True)
    fact = json.loads(done.stdout)
    print(
        f"{args.recipe}: {fact['steps']} steps of {args.batch_size}, {fact['seconds']} s, {fact['tiles_per_second']} tiles/s, "
        f"loss {fact['loss']}; {out}"
    )
    models = {
        "before": catalogue.model("pupil"),
        "after": catalogue.model(str(out)),
        "teacher": catalogue.model("teacher"),
    }
    for name, (images, image, y) in looked.items():
        print(f"{name}: {len(images)} squares of {len(np.unique(image))} images")
        X = {when: embedded(model, images) for when, model in models.items()}
        for when, found in judged(X, image, y).items():
            print(f"  {when:<8}", found, flush=True)


if __name__ == "__main__":
    main()
