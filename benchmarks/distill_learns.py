"""Does a student learn, on real tissue? CKA to the teacher and a kNN score, before and after a few minutes on a processor.

    python benchmarks/distill_learns.py TILES LABELLED [--recipe g2l|h0-mini] [--steps 500] [--vit FILE]

TILES is a folder of images to learn from, LABELLED one with tiles.csv (path, label) that is only looked at; neither may
be a benchmark of yours. g2l: EfficientNet-Lite0 (ImageNet) teaches; h0-mini: a small DINOv2 ViT (`--vit`, a file of
weights for vit_small_patch14_dinov2 with eight blocks), with prototypes. The student is a random ViT of four blocks.
Intervals are 95 % bootstraps over the held-out tiles, and over labelled tiles.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from eosin import metrics, probes
from eosin.index import open_index
from eosin.places import Places
from eosin.plugins import Catalogue
from eosin.tiles import Reader
from eosin.trainset import dataset_of
from eosin.watchtower import _embedded

SIDE = {"g2l": 96, "h0-mini": 98}
READOUTS = {"g2l": "cls", "h0-mini": "cls+mean"}
ROWS = """
models:
  teacher: {teacher}
  pupil: {{kind: timm, arch: {arch}, arch_options: {{img_size: {side}, depth: 4, embed_dim: 192, num_heads: 3, dynamic_img_size: true}}, size: {side}, seed: 1, readout: {readout}, mean: {mean}, std: {std}}}
datasets:
  looked-at: {{kind: manifest, root: {labelled}}}
"""
TEACHERS = {
    "g2l": "{{kind: timm, arch: tf_efficientnet_lite0, weights: 'package:{package}', key_map: efficientnet_pytorch, size: {side}, mean: [.5, .5, .5], std: [.5, .5, .5]}}",
    "h0-mini": "{{kind: timm, arch: vit_small_patch14_dinov2, arch_options: {{depth: 8, dynamic_img_size: true}}, weights: {vit}, size: {side}, readout: cls+mean}}",
}
OPTIONS = {
    "g2l": {"crop": 96, "lr": 1e-3, "stop": "off"},
    "h0-mini": {
        "teacher_head": "prototypes", "class_prototypes": 256, "patch_prototypes": 512, "prototypes": 512, "hidden": 256,
        "local_crops": 0, "global_size": 98, "fit_tiles": 256, "epochs": 10, "warmup_epochs": 1, "temperature_epochs": 2, "lr": 0.004,
        "ema": 0.9, "ema_end": 0.98, "layer_decay": 1.0, "global_scale": 0.6, "jitter": 0.2, "grey": 0.0, "solarise": 0.0, "blur_first": 0.1,
    },
}  # fmt: skip


def interval(score, n: int, times: int = 200) -> str:
    rng = np.random.default_rng(0)
    values = [score(rng.integers(0, n, n)) for _ in range(times)]
    return f"{np.quantile(values, 0.025):.3f} to {np.quantile(values, 0.975):.3f}"


def judged(model, teacher, images, labelled, y) -> dict[str, str]:
    """CKA (debiased) to the teacher on held-out tiles, and leave-one-out 5-NN accuracy on the labelled ones."""
    X, T, L = _embedded(model, images), _embedded(teacher, images), _embedded(model, labelled)

    def cka(rows):
        rows = np.unique(rows)  # the same tile twice would count as a pair
        return metrics.cka(T[rows], X[rows], debiased=True)

    right = []
    for k in range(5):
        test = np.arange(len(y)) % 5 == k
        predicted = probes.knn(5, "cosine").fit(L[~test], y[~test]).predict(L[test])
        right.append((np.flatnonzero(test), predicted == y[test]))
    hit = np.empty(len(y))
    for rows, good in right:
        hit[rows] = good
    everyone = np.arange(len(X))
    return {
        "CKA (debiased)": f"{cka(everyone):.3f} ({interval(cka, len(X))})",
        "kNN accuracy": f"{hit.mean():.3f} ({interval(lambda rows: hit[rows].mean(), len(y))})",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("labelled", type=Path)
    parser.add_argument("--recipe", choices=list(OPTIONS), default="g2l")
    parser.add_argument("--vit", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--option", action="append", default=[])
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    side = SIDE[args.recipe]
    own = Catalogue().models.things["efficientnet-lite0"].card
    teacher = TEACHERS[args.recipe].format(package=own.weights.removeprefix("package:"), side=side, vit=args.vit)
    arch = {"g2l": "vit_tiny_patch16_224", "h0-mini": "vit_small_patch14_dinov2"}[args.recipe]
    (folder / "registry.yaml").write_text(
        ROWS.format(
            teacher=teacher,
            side=side,
            arch=arch,
            readout=READOUTS[args.recipe],
            labelled=args.labelled.absolute(),
            mean=[0.7, 0.58, 0.7],
            std=[0.21, 0.23, 0.18],
        )
    )
    catalogue = Catalogue([folder / "registry.yaml"])
    out = folder / "run"
    options = [f"{k}={v}" for k, v in OPTIONS[args.recipe].items()] + args.option
    command = [
        sys.executable, "-m", "eosin.cli", "distill", args.recipe, "--teacher", "teacher", "--student", "pupil", "--tiles", args.tiles,
        "--out", out, "--steps", args.steps, "--batch-size", args.batch_size, "--registry", folder / "registry.yaml", "--json",
        "--probe-every", max(1, args.steps // 4), "--held-out", 256,
        *(word for option in options for word in ("--option", option)),
    ]  # fmt: skip
    done = subprocess.run([str(w) for w in command], stdout=subprocess.PIPE, text=True, check=True)
    fact = json.loads(done.stdout)
    used = [line.rsplit(",", 1) for line in (out / "tiles.csv").read_text().splitlines()[1:]]
    held_out = {name.split('"')[1] for name, use in used if use == "held-out"}
    index = open_index(dataset_of(args.tiles, False, {}), Places.of().data, folder / "indexes", args.tiles.absolute())
    reader = Reader(index.root, index.table)
    images = [reader.read(i) for i, name in enumerate(index.table["id"].tolist()) if name in held_out]
    looked = open_index(catalogue.datasets.things["looked-at"], folder, folder / "indexes")
    labelled = [Reader(looked.root, looked.table).read(i) for i in range(len(looked.table))]
    y = looked.table["label"]
    order = np.random.default_rng(0).permutation(len(y))
    labelled, y = [labelled[i] for i in order], y[order]
    taught = catalogue.model("teacher")
    print(
        f"{args.recipe}: {fact['steps']} steps of {args.batch_size}, {fact['seconds']} s, {fact['tiles_per_second']} tiles/s, loss {fact['loss']}"
    )
    for name, model in (
        ("before", catalogue.model("pupil")),
        ("after", catalogue.model(str(out))),
        ("teacher", taught),
    ):
        print(name, judged(model, taught, images, labelled, y), flush=True)


if __name__ == "__main__":
    main()
