"""End-to-end embedding against the bare forward pass on tensors that are already in memory, in one process.

    python benchmarks/embedding.py [ARCH] [TILES] [DEVICE]

Both ways alternate and the best of three rounds counts, since machines are noisy. JPEG and PNG tiles of 224 px.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import eosin
from eosin.embed import Engine, Job, fill
from eosin.index import open_index
from eosin.plugins import Catalogue
from eosin.store import Address

BATCH = 16
ROUNDS = 3


def tissue(n: int, folder: Path, suffix: str) -> None:
    """Tiles that compress as tissue does: noise smoothed at two scales, in H&E's colours."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(n):
        coarse = np.kron(rng.random((14, 14)), np.ones((16, 16)))
        fine = np.kron(rng.random((112, 112)), np.ones((2, 2)))
        mix = (0.6 * coarse + 0.4 * fine)[..., None]
        pixels = mix * (110, 60, 140) + (1 - mix) * (230, 180, 210)
        Image.fromarray(pixels.astype(np.uint8)).save(
            folder / f"{i:05d}{suffix}", **({"quality": 85} if suffix == ".jpg" else {})
        )
    (folder / "tiles.csv").write_text("path\n" + "\n".join(f"{i:05d}{suffix}" for i in range(n)) + "\n")


def bare(model, n: int) -> float:
    """Seconds for n tiles that are tensors already."""
    x = torch.randn(BATCH, 3, model.card.size, model.card.size, device=model.device)
    with torch.inference_mode():
        model.embed(x)
        start = time.perf_counter()
        for _ in range(n // BATCH):
            model.embed(x)["cls"].cpu()
        return time.perf_counter() - start


def main() -> None:
    arch = sys.argv[1] if len(sys.argv) > 1 else "vit_small_patch16_224"
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    device = sys.argv[3] if len(sys.argv) > 3 else "cpu"
    model = Catalogue().model(f"timm:{arch}")
    model.device = device
    with tempfile.TemporaryDirectory() as temp:
        top = Path(temp)
        print(f"{arch}, {n} tiles, {device}, {torch.get_num_threads()} threads, batch {BATCH}")
        for suffix in (".jpg", ".png"):
            tissue(n, top / suffix, suffix)
            index = open_index(eosin.Manifest("bench"), top, top / "indexes", top / suffix)
            ratios = []
            for r in range(ROUNDS):
                forward = bare(model, n)
                job = Job(model, index, Address(top / f"store{suffix}{r}", n, {}))
                start = time.perf_counter()
                fill(job, Engine(device=device, batch_size=BATCH))
                ratios.append((forward / (time.perf_counter() - start), n / forward))
            best = max(ratios)
            print(
                f"{suffix}: {best[1]:.1f} tiles/s bare; end to end {best[0]:.3f} of it (rounds: {', '.join(f'{r[0]:.3f}' for r in ratios)})"
            )


if __name__ == "__main__":
    main()
