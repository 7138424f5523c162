"""Several workers on one address: devices of a machine, shards of an array job. Killed or broken, they end with the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from eosin import store
from eosin.crew import Crew, devices
from eosin.embed import Engine, fill
from eosin.errors import DataError, EosinError, UsageError
from helpers import bench, bench_process, job, make_tiles, parts, tile, write_table
from test_embed import BLOCK, clear, forget, long, reference, seen, strange, tint, tiny  # noqa: F401

TWO = ("cpu", "cpu")
EMBED = ("embed", "-m", "tint", "-d", "tiny", "--json")


@pytest.fixture
def crew(home, tint, long, tmp_path, monkeypatch):  # noqa: F811
    """The traced model where processes of their own find it too."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tint


def started(*args, **env) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "eosin.cli", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )


def workers(home) -> list[int]:
    """The processes that hold blocks, by their claims."""
    held = set()
    for path in (home / "embeddings").rglob("*.claim"):
        try:
            held.add(int(path.read_text().split("~")[1]))
        except (OSError, IndexError, ValueError):
            continue
    return sorted(held)


def wait_for(condition, seconds: float = 60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)
    return found


def test_two_devices_make_the_bytes_of_one(home, crew, long):  # noqa: F811
    whole = reference(home)
    forget(crew)
    (crew / "built").unlink()
    told, lost = [], []
    assert Crew(device="cpu", devices=TWO, say=lost.append).fill(job(home), told.append) == 1300
    assert parts(home / "embeddings") == whole and sum(told) == 1300 and not lost
    assert max(seen(crew).values()) == 1, "no tile twice"
    assert (crew / "built").read_text() == "built\n" * 2, "each built its model once"
    assert not list((home / "embeddings").rglob("*.claim"))


@pytest.mark.slow
def test_a_killed_worker_costs_its_block_and_the_front_says_so(home, crew, long):  # noqa: F811
    whole = reference(home)
    forget(crew)
    front = started(*EMBED, "--devices", "cpu,cpu", TINT_SLEEP="0.03")
    victim = wait_for(lambda: [w for w in workers(home) if seen(crew)])[0]
    os.kill(victim, signal.SIGKILL)
    out, err = front.communicate(timeout=120)
    assert front.returncode == 0, err
    assert "worker on cpu was lost (exit code -9)" in err
    assert parts(home / "embeddings") == whole
    assert seen(crew).total() - 1300 <= BLOCK


@pytest.mark.slow
def test_when_all_workers_are_killed_it_ends_with_1_and_the_next_run_goes_on(home, crew, long):  # noqa: F811
    whole = reference(home)
    front = started(*EMBED, "--devices", "cpu,cpu", TINT_SLEEP="0.05")
    for victim in wait_for(lambda: len(workers(home)) == 2 and workers(home)):
        os.kill(victim, signal.SIGKILL)
    out, err = front.communicate(timeout=120)
    assert front.returncode == 1 and "failed: tint on tiny: The worker on cpu was lost" in err
    assert bench_process(*EMBED, "--devices", "cpu,cpu").json["missing"] == 0
    assert parts(home / "embeddings") == whole


def test_workers_that_die_as_they_start_are_lost_and_not_waited_for(home, crew, long, tmp_path):  # noqa: F811
    """Out of memory while torch is loaded, say: before they have read what they are to do."""
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, sys\nif any('spawn_main' in a for a in sys.orig_argv):\n    os._exit(3)\n"
    )
    front = started(*EMBED, "--devices", "cpu,cpu")
    try:
        out, err = front.communicate(timeout=90)
    finally:
        front.kill()
    assert front.returncode == 1 and "The worker on cpu was lost (exit code 3)" in err, err


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_front(home, crew, long, how):  # noqa: F811
    front = started(*EMBED, "--devices", "cpu,cpu", TINT_SLEEP="0.2")
    pids = wait_for(lambda: len(workers(home)) == 2 and workers(home))
    front.send_signal(how)
    front.communicate(timeout=60)
    wait_for(lambda: not any(alive(p) for p in pids), 10)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as handle:
            return handle.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_broken_tiles_are_named_once_and_tried_once(home, crew, long):  # noqa: F811
    for i in (300, 700, 701):
        (long / "t" / f"{i:04d}.png").write_bytes(b"")
    with pytest.raises(DataError, match="3 tiles cannot be read.*--skip-broken") as error:
        Crew(device="cpu", devices=TWO).fill(job(home))
    assert str(error.value).count("t/0300.png") == 1
    assert job(home).address.missing() == [1, 2]
    assert seen(crew).total() == len(seen(crew)) == 1297, "a block that stays out is not tried by the other worker too"


@pytest.mark.slow
def test_a_worker_that_was_lost_with_what_it_knew_is_the_error(home, crew, long):  # noqa: F811
    """It met a broken tile and was killed before it could say so: nothing else may be called kept."""
    for i in (300, 1290):
        (long / "t" / f"{i:04d}.png").write_bytes(b"")
    front = started(*EMBED, "--devices", "cpu,cpu", TINT_SLEEP="0.3")
    first = wait_for(
        lambda: [int(p.read_text().split("~")[1]) for p in (home / "embeddings").rglob("part-000001.claim")]
    )
    wait_for(lambda: not list((home / "embeddings").rglob("part-000001.claim")))
    os.kill(first[0], signal.SIGKILL)
    out, err = front.communicate(timeout=120)
    assert front.returncode == 1 and "Everything else is embedded" not in err
    assert "failed: tint on tiny: The worker on cpu was lost" in err


@pytest.mark.slow
def test_what_a_model_prints_is_no_fact(home, crew, long, tmp_path, monkeypatch):  # noqa: F811
    strange(monkeypatch, tmp_path, "print('hello')\nreturn torch.zeros(n, 4)")
    done = bench_process("embed", "-m", "odd", "-d", "tiny", "--json", "--devices", "cpu,cpu")
    assert done.code == 0 and done.json["missing"] == 0 and "hello" in done.err


@pytest.mark.slow
def test_ctrl_c_gives_claims_back(home, crew, long):  # noqa: F811
    front = started(*EMBED, "--devices", "cpu,cpu", TINT_SLEEP="0.1")
    pids = wait_for(lambda: len(workers(home)) == 2 and workers(home))
    for pid in (front.pid, *pids):  # as a terminal does
        os.kill(pid, signal.SIGINT)
    front.communicate(timeout=60)
    assert front.returncode and not list((home / "embeddings").rglob("*.claim"))


@pytest.mark.slow
def test_an_error_of_the_model_is_told_as_by_one(home, crew, long, tmp_path, monkeypatch):  # noqa: F811
    strange(monkeypatch, tmp_path, "raise IndexError('deep inside')")
    with pytest.raises(EosinError, match="odd: embed failed with IndexError: deep inside"):
        Crew(device="cpu", devices=TWO).fill(job(home, "odd"))


def test_no_room_for_what_workers_share(home, crew, long, monkeypatch):  # noqa: F811
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eosin.crew.SPAWN.RawArray", full)
    with pytest.raises(EosinError, match="No space left on device. Make some in /dev/shm .* or use one --device"):
        Crew(device="cpu", devices=TWO).fill(job(home))


def test_a_model_that_cannot_travel_says_so(home, crew, long):  # noqa: F811
    work = job(home)
    work.extractor.hook = lambda: None
    with pytest.raises(EosinError, match="tint cannot be sent to another process: .*Define its class at the top"):
        Crew(device="cpu", devices=TWO).fill(work)


def test_one_block_needs_one_process(home, crew, tmp_path):
    shutil.rmtree(home / "data" / "tiny")
    make_tiles(home / "data" / "tiny", 30)
    done = bench("run", "-m", "tint", "-b", "tint-mean", "--json", "--no-floor", "--devices", "cpu,cpu")
    assert done.code == 0 and done.json["embedded"] == 30
    with open(done.json["records"][0]) as handle:
        (cost,) = json.load(handle)["embed"]
    assert cost["device"] == "cpu,cpu" and cost["workers"] == 2 and cost["tiles"] == 30


def test_devices_as_they_are_written(monkeypatch):
    assert devices("0,1, 3") == ("cuda:0", "cuda:1", "cuda:3")
    assert devices("cuda:1,cpu") == ("cuda:1", "cpu")
    assert len(devices("auto")) >= 1
    with pytest.raises(UsageError, match="--devices 0,,1: write auto"):
        devices("0,,1")
    for wrong in (["--devices", "0", "--device", "cpu"], ["--devices", "0", "--engine", "ray"], ["--address", "auto"]):
        assert bench(*EMBED, *wrong).code == 2


def test_a_claim_of_a_frozen_process_does_not_hold_for_ever(tmp_path):
    from eosin import claims

    frozen, other = claims.Claims(tmp_path), claims.Claims(tmp_path)
    assert frozen.take(0) and not other.take(0)
    os.utime(frozen.path(0), (time.time() - 2 * claims.STALE,) * 2)
    assert other.take(0)


# ---- array jobs


def missing(*more) -> dict:
    return bench(*EMBED, "--status", *more).json


def test_the_status_of_a_shard(home, crew, long):  # noqa: F811
    fill(job(home), Engine(device="cpu", shard=(2, 4)))
    assert (missing()["missing"], missing("--shard", "2/4")["missing"], missing("--shard", "3/4")["missing"]) == (
        1300 - 256 - 20,
        0,
        256,
    )
    assert missing()["jobs"][0]["missing_blocks"] == [0, 2, 3, 4]


def make_sheet(root, n: int) -> None:
    """Many tiles as boxes of one image, which costs less than as many files."""
    side = 64
    rows = [tile(i, i % 2) for i in range(n)]
    sheet = np.concatenate([np.concatenate(rows[i : i + side], axis=1) for i in range(0, n, side)])
    root.mkdir(parents=True)
    Image.fromarray(sheet).save(root / "sheet.png", compress_level=1)
    where = [{"x": i % side * 16, "y": i // side * 16, "w": 16, "h": 16} for i in range(n)]
    write_table(
        root, [{"id": f"{i:05d}", "path": "sheet.png", "label": "ab"[i % 2], **box} for i, box in enumerate(where)]
    )


@pytest.mark.slow
def test_16_shards_in_8_processes_some_twice(home, tint, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.path.dirname(__file__)}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    make_sheet(home / "data" / "tiny", 4096)
    assert len(job(home).address.blocks) == 16
    whole = reference(home)
    forget(tint)
    groups = ((1, 2, 3), (3, 4), (5, 6, 1), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16, 2))
    code = (
        "import sys; from helpers import bench\n"
        "for i in sys.argv[1:]: assert bench('embed', '-m', 'tint', '-d', 'tiny', '--shard', f'{i}/16').code == 0"
    )
    all_ = [subprocess.Popen([sys.executable, "-c", code, *map(str, group)]) for group in groups]
    assert [p.wait(timeout=240) for p in all_] == [0] * 8
    assert parts(home / "embeddings") == whole and missing()["missing"] == 0
    assert all(store.sound(p) for p in (home / "embeddings").rglob("part-*.h5"))
    assert max(seen(tint).values()) == 1, "a shard that is started twice does nothing twice"
