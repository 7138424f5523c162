"""How near to linear several workers of one machine are, for what the harness itself adds: plan, claims, reading, publishing.

    python benchmarks/devices_speed.py [TILES] [WORKERS …]

The devices are made up: a batch takes its time (64 tiles at 150 a second, as a ViT-g on a large GPU) in which the
processor is free, as it is while a GPU computes. Tiles are tiny, so that two cores can feed eight such devices. A run is
timed as a whole, and from the first block on, when all have imported torch and built the model.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import eosin
from eosin.crew import Crew
from eosin.embed import Job
from eosin.index import open_index
from eosin.store import Address

RATE = 150.0
BATCH = 64


class Elsewhere(eosin.FeatureExtractor):
    """A model on a device that leaves the processor alone."""

    card = eosin.ModelCard("elsewhere", dim=1536, size=32)

    def build(self) -> torch.nn.Module:
        return torch.nn.Identity()

    def embed(self, batch: torch.Tensor) -> torch.Tensor:
        time.sleep(len(batch) / RATE)
        return batch.reshape(len(batch), -1)[:, : self.card.dim]


def tiles(n: int, folder: Path) -> None:
    """Images of 64 tiles each, and their table."""
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32 * 64, 3), np.uint8)
    folder.mkdir()
    for i in range(-(-n // 64)):
        Image.fromarray(pixels).save(folder / f"{i:05d}.png", compress_level=1)
    rows = (f"{i // 64:05d}.png,{i % 64 * 32},0,32,32" for i in range(n))
    (folder / "tiles.csv").write_text("path,x,y,w,h\n" + "\n".join(rows) + "\n")


class Watch(list[tuple[float, int]]):
    """When rows were published, and how many."""

    def __call__(self, rows: int) -> None:
        if rows:
            self.append((time.perf_counter(), rows))

    def rate(self) -> float:
        """Rows a second from the first block on."""
        return sum(rows for _, rows in self[1:]) / (self[-1][0] - self[0][0])


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 16_384
    sizes = [int(a) for a in sys.argv[2:]] or [1, 2, 4, 8]
    alone = 0.0
    with tempfile.TemporaryDirectory() as temp:
        top = Path(temp)
        tiles(n, top / "bench")
        index = open_index(eosin.Manifest("bench"), top, top / "indexes", top / "bench")
        for size in sizes:
            address, watch = Address(top / f"m@{size}" / "d@1", n, {}), Watch()
            engine = Crew(batch_size=BATCH, devices=("cpu",) * size)
            start = time.perf_counter()
            engine.fill(Job(Elsewhere(), index, address), watch)
            whole, rate = time.perf_counter() - start, watch.rate()
            alone = alone or rate / size
            print(
                f"{size} workers, {len(address.blocks)} blocks: {whole:.1f} s, {n / whole:.0f} tiles/s; from the first block on "
                f"{rate:.0f} tiles/s, {rate / alone:.2f} times one, {rate / (RATE * size):.2f} of what the devices could do"
            )


if __name__ == "__main__":
    main()
