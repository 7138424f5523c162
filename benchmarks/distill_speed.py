"""What does a step of distillation cost beyond its networks, and how fast do tiles come from slides?

    python benchmarks/distill_speed.py step [--teacher vit_base_patch16_224 --student vit_small_patch16_224 --batch-size 16]
    python benchmarks/distill_speed.py read SLIDES [--workers 8] [--copies 20]

`step`: the recipe g2l on random networks and JPEG tiles, reading, augmentation, projector, loss, optimiser and log
included, against the teacher's forward and the student's forward and backward alone on tensors of the same shape, the two
in turns. On a GPU: tiles/s and memory too; the paper's sizes are `--teacher vit_giant_patch14_dinov2 --student
vit_large_patch14_dinov2 --batch-size 32 --precision bf16 --device cuda`.

`read`: decoded tiles/s of a training run without its networks, in the random order of a run, from copies of the slides of a
folder, so that no cache of a slide lasts.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from eosin.distill import Distillation, Plan
from eosin.index import open_index
from eosin.plugins import Catalogue
from eosin.slides import slides_at
from eosin.trainset import Batches, choose, dataset_of

ROWS = """
models:
  teacher: {{kind: timm, arch: {teacher}, arch_options: {{img_size: 224}}, seed: 1, size: 224}}
  pupil: {{kind: timm, arch: {student}, arch_options: {{img_size: 224}}, seed: 2, size: 224}}
"""


def batches(folder: Path, work: Path, o: argparse.Namespace, slides: bool, **options) -> Batches:
    index = open_index(dataset_of(folder, slides, options), work, work / "indexes", folder.absolute())
    rows = choose(index.table, 0, 0, 0, [], 0).rows
    return Batches(index, rows, o.batch_size, 224, 0, o.workers)


def timed(action: Callable[[], object], device: str) -> float:
    import torch

    start = time.perf_counter()
    action()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def step(o: argparse.Namespace, work: Path) -> None:
    import torch

    rng = np.random.default_rng(0)
    (work / "tiles").mkdir()
    for i in range(o.batch_size * 4):
        coarse = Image.fromarray(rng.integers(90, 255, (32, 32, 3), dtype=np.uint8))
        coarse.resize((256, 256), Image.Resampling.BICUBIC).save(work / "tiles" / f"{i}.jpg", quality=85)
    (work / "registry.yaml").write_text(ROWS.format(teacher=o.teacher, student=o.student))
    catalogue = Catalogue([work / "registry.yaml"])
    teacher, student = catalogue.model("teacher"), catalogue.model("pupil")
    card = catalogue.recipes.things["g2l"]
    recipe = type(card)(card.card, {"batch_size": o.batch_size, "stop": "off"})
    plan = Plan(o.device, precision=o.precision, checkpoint_every=0)
    run = Distillation(recipe, teacher, student, batches(work / "tiles", work, o, False), work / "run", plan)
    run.begin(False)
    whole = run.steps()
    x = torch.rand(o.batch_size, 3, 224, 224, device=o.device)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(o.precision)

    def alone() -> None:
        cast = torch.autocast(o.device.split(":")[0], dtype=half) if half else contextlib.nullcontext()
        with cast, torch.no_grad():
            teacher.embed(x)
        with cast:
            out = student.embed(x)
        sum(v.float().mean() for v in (out.values() if isinstance(out, dict) else [out])).backward()
        student.module.zero_grad(set_to_none=True)

    bare, full = [], []
    for _ in range(o.rounds + 1):
        bare.append(timed(alone, o.device))
        full.append(timed(lambda: next(whole), o.device))
    bare, full = bare[1:], full[1:]  # the first builds and warms up
    ratio = statistics.median(f / b for f, b in zip(full, bare, strict=True))
    print(
        f"{o.teacher} teaches {o.student}, batch {o.batch_size}, {o.device}, {o.precision}: networks alone "
        f"{statistics.median(bare):.3f} s, a step {statistics.median(full):.3f} s: {100 * (ratio - 1):+.1f} % "
        f"({min(f / b for f, b in zip(full, bare, strict=True)):.3f} to {max(f / b for f, b in zip(full, bare, strict=True)):.3f}), "
        f"{o.batch_size / statistics.median(full):.1f} tiles/s"
    )
    if o.device.startswith("cuda"):
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GB")


def read(o: argparse.Namespace, work: Path) -> None:
    (work / "slides").mkdir()
    for path in slides_at(o.slides):
        for i in range(o.copies):
            shutil.copy(path, work / "slides" / f"{path.stem}-{i}{path.suffix}")
    found = batches(
        work / "slides", work, o, True, mpp=0.5, size=224, **({"slide_mpp": o.slide_mpp} if o.slide_mpp else {})
    )
    whole = found.steps(0, o.rounds + 4)
    for _ in range(4):
        next(whole)
    start = time.perf_counter()
    n = sum(len(images) for _, images in whole)
    seconds = time.perf_counter() - start
    print(
        f"{len(found.order.rows):,} tiles of {o.copies} copies of {len(list(slides_at(o.slides)))} slides, {o.workers} workers: "
        f"{n / seconds:.0f} tiles/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["step", "read"])
    parser.add_argument("slides", nargs="?", type=Path)
    parser.add_argument("--teacher", default="vit_base_patch16_224")
    parser.add_argument("--student", default="vit_small_patch16_224")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--slide-mpp", type=float, default=0.0)
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"step": step, "read": read}[o.what](o, Path(folder))


if __name__ == "__main__":
    main()
