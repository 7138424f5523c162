"""Small things that many tests make: tables of tiny tiles, plugins with entry points, commands, a killer of processes."""

from __future__ import annotations

import csv
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

TESTS = Path(__file__).parent

TINT = '''
"""A model that is fast, exact and leaves traces: which tiles it saw, and whether it was built."""
import os
import time

import numpy as np

import eosin


def trace(name, text):
    folder = os.environ.get("TINT_TRACES")
    if folder:
        with open(os.path.join(folder, name), "a") as handle:
            handle.write(text)


class Tint(eosin.FeatureExtractor):
    card = eosin.ModelCard("tint", dim=6, size=16, mean=(0, 0, 0), std=(1, 1, 1), readouts=("cls", "mean"), readout="cls")

    def build(self):
        import torch

        trace("built", "built\\n")
        return torch.nn.Identity()

    def embed(self, batch):
        pixels = np.rint(np.asarray(self.module(batch)) * 255)
        trace("seen", "".join(f"{int(p[0] * 256 + p[1])}\\n" for p in pixels[:, :, 0, 0]))
        time.sleep(float(os.environ.get("TINT_SLEEP", 0)))
        flat = pixels.reshape(len(pixels), 3, -1)
        both = np.concatenate([flat.mean(2), flat.std(2)], axis=1) / 255
        return {"cls": both, "mean": both[:, :3] + 1}


class Centroid(eosin.Benchmark):
    """Nearest class mean, every third row held out."""

    card = eosin.BenchmarkCard("tint-mean", dataset="tiny", metric="accuracy")

    def score(self, emb):
        held = np.arange(len(emb)) % 3 == 0
        means = np.stack([emb.X[~held & (emb.y == c)].mean(0) for c in range(len(emb.classes))])
        distance = ((emb.X[held][:, None] - means[None]) ** 2).sum(2)
        right = distance.argmin(1) == emb.y[held]
        predictions = {
            "id": emb.id[held], "fold": np.zeros(held.sum(), int), "seed": np.zeros(held.sum(), int),
            "y": emb.y[held], "score": -distance,
        }
        return eosin.Scores({"accuracy": float(right.mean())}, predictions)


class Boom(eosin.Benchmark):
    card = eosin.BenchmarkCard("tint-boom", dataset="tiny", metric="accuracy")

    def score(self, emb):
        raise KeyError("a stranger's slip")


@eosin.hookimpl
def provide_models():
    return [Tint()]


@eosin.hookimpl
def provide_benchmarks():
    return [Boom(), Centroid()]
'''


def tile(number: int, label: int, size: int = 16) -> np.ndarray:
    """(size, size, 3) uint8 noise around the label's tint; the first pixel spells the tile's number."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 90, (size, size, 3)) + np.array([[120, 40, 90], [40, 120, 90], [90, 40, 140]][label % 3])
    pixels[0, 0] = number // 256, number % 256, 77
    return pixels.astype(np.uint8)


def make_tiles(root: Path, n: int = 60, classes: int = 2, size: int = 16, **columns: list) -> Path:
    """A manifest folder: t/0000.png … and tiles.csv with path, label, group and any more columns."""
    (root / "t").mkdir(parents=True)
    rows = []
    for i in range(n):
        path = f"t/{i:04d}.png"
        Image.fromarray(tile(i, i % classes, size)).save(root / path, compress_level=1)
        rows.append(
            {"path": path, "label": "abc"[i % classes], "group": f"p{i % 7}", **{k: v[i] for k, v in columns.items()}}
        )
    write_table(root, rows)
    return root


def write_table(root: Path, rows: list[dict]) -> None:
    with open(root / "tiles.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_table(root: Path) -> list[dict]:
    with open(root / "tiles.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def write_plugin(folder: Path, module: str, source: str) -> None:
    """A distribution as pip would have left it: a module and a dist-info whose entry point names it."""
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[eosin]\n{module} = {module}\n")


def install(monkeypatch, folder: Path, module: str, source: str) -> None:
    """Write a plugin and put it on this process's path, for one test."""
    write_plugin(folder, module, source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(
        sys, "dont_write_bytecode", True
    )  # a plugin rewritten within a second must not come from a cache
    importlib.invalidate_caches()


def uninstall(monkeypatch, module: str) -> None:
    """Forget a loaded module, so that the next catalogue reads its file again."""
    monkeypatch.delitem(sys.modules, module, raising=False)
    importlib.invalidate_caches()


class Result:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def bench(*args) -> Result:
    """A command in this process."""
    from click.testing import CliRunner

    from eosin.cli import main

    done = CliRunner().invoke(main, [str(a) for a in args])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Result(done.exit_code, done.stdout, done.stderr)


def bench_process(*args, **env) -> Result:
    """A command in a process of its own, as a user starts it."""
    done = subprocess.run(
        [sys.executable, "-m", "eosin.cli", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        timeout=300,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def parts(store: Path) -> dict[str, bytes]:
    """Every published part of a store, by its path below it."""
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in sorted(store.glob("*/*/part-*.h5"))}


def job(home: Path, model: str = "tint", dataset: str = "tiny", **need):
    """The address of a model on a dataset, planned from nothing as a fresh process does."""
    from eosin.benchmark import Need
    from eosin.places import Places
    from eosin.plan import Planner
    from eosin.plugins import Catalogue

    places = Places.of()
    catalogue = Catalogue(places.registries)
    return Planner(catalogue, places).job(catalogue.model(model), Need(dataset, **need))


def fork(action) -> int:
    """A child process that does `action` and ends; its pid. Torch must be imported and unused when this is called."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        import torch

        torch.set_num_threads(1)
        action()
        code = 0
    except BaseException as error:
        import traceback

        traceback.print_exception(error)
    finally:
        os._exit(code)
