"""Hours of hard use in minutes: random commands on a tiny dataset, killed, starved of disk, with parts damaged under them.

    python scripts/soak.py --minutes 120 [--seed 1] [--home FOLDER]

At the end every record and every part must equal those of a fresh run, no file may be left that nobody needs, and the
process that ran thousands of commands must not have grown. Exit code 1 and a sentence a finding otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

TILES = 600  # three blocks
MODELS = ("color-stats", "timm:test_vit")
BENCHMARKS = ("soak-knn", "soak-linear")
REGISTRY = """
datasets: {soak: {kind: manifest}}
benchmarks:
  soak-knn: {dataset: soak, protocol: g2l-knn@1, metric: accuracy}
  soak-linear: {dataset: soak, protocol: g2l-linear@1, metric: accuracy}
"""
VOLATILE = ("seconds", "embed", "created", "peak_memory_mb", "environment")  # what may differ between equal runs


def dataset(root: Path) -> None:
    """TILES tiles of 16 pixels in two tints, seven patients."""
    (root / "t").mkdir(parents=True)
    rows = ["path,label,group"]
    for i in range(TILES):
        rng = np.random.default_rng(i)
        tint = ((150, 60, 110), (110, 60, 150))[i % 2]
        Image.fromarray((rng.integers(0, 90, (16, 16, 3)) + tint).astype(np.uint8)).save(root / f"t/{i:04d}.png")
        rows.append(f"t/{i:04d}.png,{'ab'[i % 2]},p{i % 7}")
    (root / "tiles.csv").write_text("\n".join(rows) + "\n")


def world(home: Path) -> None:
    dataset(home / "data" / "soak")
    (home / "registry.yaml").write_text(REGISTRY)


def start(home: Path, *args: str, file_limit: int = 0) -> subprocess.Popen[bytes]:
    """A command in a process of its own; with a limit, no file of it may grow beyond so many bytes: a full disk."""

    def starve() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails as it does on a full disk: with an OSError
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.Popen(
        [sys.executable, "-m", "eosin.cli", *args],
        env={**os.environ, "EOSIN_HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=starve if file_limit else None,
    )


def inside(*args: str) -> tuple[int, str]:
    """A command in this process, where leaks would add up: exit code and what it said."""
    from click.testing import CliRunner

    from eosin.cli import main

    done = CliRunner().invoke(main, list(args))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stderr


def spawned(front: int) -> list[int]:
    """The workers of a crew: the processes that its front has spawned, and that have begun."""
    try:
        children = map(int, Path(f"/proc/{front}/task/{front}/children").read_text().split())
        return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except OSError:  # it has ended
        return []


class Soak:
    """One home under hard use. `findings` are sentences about what must not happen."""

    def __init__(self, home: Path, rng: random.Random) -> None:
        self.home, self.rng = home, rng
        self.findings: list[str] = []
        self.count: Counter[str] = Counter()
        self.bag: list[Callable[[], None]] = []
        self.actions: list[Callable[[], None]] = [
            self.run, self.run, self.embed, self.look, self.look, self.killed, self.killed, self.starved, self.two,
            self.crew, self.damage, self.lose, self.damage_beside, self.forget, self.tidy, self.export,
        ]  # fmt: skip

    def step(self) -> None:
        if not self.bag:  # every sort of mishap in every round
            self.bag = self.rng.sample(self.actions, len(self.actions))
        action = self.bag.pop()
        self.count[action.__name__] += 1
        action()

    def expect(self, code: int, said: str, allowed: tuple[int, ...], what: str) -> None:
        if code not in allowed or "Traceback" in said or (code == 1 and "Error:" in said):
            self.findings.append(f"{what} ended with {code}: {said.strip()[-600:]}")

    def command(self) -> list[str]:
        model = self.rng.choice(MODELS)
        if self.rng.random() < 0.4:
            how = self.rng.choice(["--shard=1/1", "--shard=1/2", "--shard=2/2", "--view=jpeg-30", "--devices=cpu,cpu"])
            return ["embed", "-m", model, "-d", "soak", how]
        return ["run", "-m", model, "-b", self.rng.choice(BENCHMARKS)]

    def run(self) -> None:
        args = ["run", "-m", self.rng.choice(MODELS), "-b", self.rng.choice(BENCHMARKS)]
        self.expect(*inside(*args), (0,), " ".join(args))

    def embed(self) -> None:
        args = ["embed", "-m", self.rng.choice(MODELS), "-d", "soak", "--view", "jpeg-30"]
        self.expect(*inside(*args), (0,), " ".join(args))

    def look(self) -> None:
        args = self.rng.choice(
            [["list", "models"], ["leaderboard"], ["store", "ls"], ["store", "du"], ["data", "check", "soak"], ["show", "soak"]]
        )  # fmt: skip
        self.expect(*inside(*args), (0,), " ".join(args))

    def tidy(self) -> None:
        args = self.rng.choice([["store", "gc", "--yes"], ["store", "verify"]])
        self.expect(*inside(*args), (0, 1) if args[1] == "verify" else (0,), " ".join(args))

    def export(self) -> None:
        out = self.home / self.rng.choice(["e.npz", "e.h5", "e.csv"])
        self.expect(*inside("store", "export", "color-stats/soak", "--out", str(out)), (0, 1, 2, 3), "export")
        out.unlink(missing_ok=True)

    def killed(self) -> None:
        """SIGKILL after a random part of what a command takes."""
        process = start(self.home, *self.command())
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.rng.uniform(0.5, 8))
        process.kill()
        process.communicate()

    def starved(self) -> None:
        args, limit = self.command(), self.rng.choice([1, 100, 1000, 5000, 20_000, 60_000])
        process = start(self.home, *args, file_limit=limit)
        _, said = process.communicate(timeout=120)
        self.expect(process.returncode, said.decode(), (0, 1), f"{' '.join(args)} with files of {limit} bytes at most")

    def two(self) -> None:
        """Two processes that want the same; one may be killed."""
        args = self.command()
        pair = [start(self.home, *args), start(self.home, *args)]
        doomed = self.rng.random() < 0.5
        if doomed:
            time.sleep(self.rng.uniform(1, 6))
            pair[0].kill()
        for process in pair:
            _, said = process.communicate(timeout=180)
            if not (doomed and process is pair[0]):
                self.expect(process.returncode, said.decode(), (0,), f"{' '.join(args)} twice at once")

    def crew(self) -> None:
        """Two workers of one front, of which one may be killed."""
        args = ["embed", "-m", self.rng.choice(MODELS), "-d", "soak", "--devices", "cpu,cpu"]
        front = start(self.home, *args)
        time.sleep(self.rng.uniform(1, 8))
        if workers := spawned(front.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.rng.choice(workers), signal.SIGKILL)
        _, said = front.communicate(timeout=180)
        self.expect(front.returncode, said.decode(), (0,), " ".join(args))

    def _some(self, pattern: str) -> Path | None:
        found = sorted(p for p in self.home.glob(pattern) if p.is_file())
        return self.rng.choice(found) if found else None

    def _harm(self, path: Path | None) -> None:
        if path is None or not (content := bytearray(path.read_bytes())):
            return
        if self.rng.random() < 0.5:
            content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
        else:
            del content[self.rng.randrange(len(content)) :]
        path.write_bytes(content)

    def damage(self) -> None:
        """A byte flipped in a part, or a part cut off."""
        self._harm(self._some("embeddings/*/*/part-*.h5"))

    def damage_beside(self) -> None:
        """The same of what may be made again: the index, the remembered hashes, predictions, records."""
        self._harm(
            self._some(
                self.rng.choice(["indexes/*/index.columns", "hashes.json", "results/*/*.npz", "results/*/*.json"])
            )
        )

    def lose(self) -> None:
        if path := self._some("embeddings/*/*/part-*.h5"):
            path.unlink()

    def forget(self) -> None:
        shutil.rmtree(self.home / self.rng.choice(["indexes", "results", "embeddings"]), ignore_errors=True)


def everything() -> None:
    """Every command of the final state, undisturbed."""
    for model in MODELS:
        for args in (["embed", "-m", model, "-d", "soak", "--view", "jpeg-30"], ["run", "-m", model, *(x for b in BENCHMARKS for x in ("-b", b))]):  # fmt: skip
            code, said = inside(*args)
            if code:
                raise SystemExit(f"{' '.join(args)} ended with {code}: {said}")


def state(home: Path) -> dict[str, object]:
    """Parts by their bytes, records without what differs from run to run, predictions by their arrays."""
    found: dict[str, object] = {}
    for path in sorted(p for top in ("embeddings", "results") for p in (home / top).rglob("*") if p.is_file()):
        name = path.relative_to(home).as_posix()
        if path.name.endswith(".json"):
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k not in VOLATILE}
            found[name] = json.loads(json.dumps(found[name]).replace(str(home), "HOME"))  # it lies elsewhere, no more
        elif path.suffix == ".npz":
            with np.load(path) as file:
                found[name] = {k: file[k].tolist() for k in file.files}
        else:
            found[name] = path.read_bytes()
    return found


def growth() -> tuple[float, int]:
    """Resident MB and open file descriptors of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20, len(os.listdir("/proc/self/fd"))


def differences(ours: dict[str, object], fresh: dict[str, object]) -> Iterator[str]:
    yield from (f"{name} is left over" for name in ours.keys() - fresh.keys())
    yield from (f"{name} is missing" for name in fresh.keys() - ours.keys())
    yield from (
        f"{name} differs from a fresh run's" for name in ours.keys() & fresh.keys() if ours[name] != fresh[name]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, help="kept for looking at (default: a temporary folder)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"], os.environ["HF_HUB_OFFLINE"] = "1", "1"
    top = options.home or Path(tempfile.mkdtemp(prefix="soak-"))
    used, fresh = top / "used", top / "fresh"
    for home in (used, fresh):
        world(home)
    os.environ["EOSIN_HOME"] = str(used)
    everything()
    soak, end, marks = Soak(used, random.Random(options.seed)), time.monotonic() + 60 * options.minutes, [growth()]
    while time.monotonic() < end:
        soak.step()
        marks.append(growth())
    everything()
    inside("store", "verify")
    everything()
    time.sleep(2.5)  # the claim of a process that was killed while it wrote its name is void by then
    inside("store", "gc", "--yes")
    os.environ["EOSIN_HOME"] = str(fresh)
    everything()
    findings = [*soak.findings, *differences(state(used), state(fresh))]
    stray = [
        p
        for p in used.rglob("*")
        if p.is_file() and (p.suffix in (".tmp", ".claim", ".damaged") or p.name.startswith("."))
    ]
    findings += [
        f"{p.relative_to(used)} is left"
        for p in stray
        if time.time() - p.stat().st_mtime > 3600 or "embeddings" in p.parts
    ]
    half = marks[len(marks) // 2 :]
    if half[-1][0] - half[0][0] > 20 + 0.05 * half[0][0]:
        findings.append(f"memory grew from {half[0][0]:.0f} to {half[-1][0]:.0f} MB in the second half")
    if half[-1][1] > half[0][1] + 2:
        findings.append(f"open files grew from {half[0][1]} to {half[-1][1]} in the second half")
    print(f"{sum(soak.count.values())} steps: " + ", ".join(f"{k} {v}" for k, v in soak.count.most_common()))
    print(f"memory {marks[0][0]:.0f} to {marks[-1][0]:.0f} MB, open files {marks[0][1]} to {marks[-1][1]}")
    for finding in findings:
        print(f"FOUND: {finding}")
    if not options.home:
        shutil.rmtree(top, ignore_errors=True)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
