"""Ray as engine: workers killed and frozen in mid-run, and the bytes of a single process at the end. Slow: it starts a Ray."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from eosin.claims import _started
from helpers import bench, parts
from test_crew import crew, started, wait_for, workers  # noqa: F401
from test_embed import BLOCK, forget, long, reference, seen, strange, tint, tiny  # noqa: F401

RAY = ("--engine", "ray", "--workers", "4", "--json")
LOST = "A worker of tint was lost"


@pytest.fixture
def ray(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_without_ray_the_error_names_the_extra(home, tint, tiny, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "ray", None)
    done = bench("embed", "-m", "tint", "-d", "tiny", *RAY)
    assert done.code == 3 and "pip install 'eosin[ray]'" in done.err


def test_nothing_of_ray_is_loaded_unless_it_is_asked_for():
    code = "import sys, eosin.cluster, eosin.work; print('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nobody_listens_it_says_so_at_once(home, tint, tiny, ray, scheme):  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    began = time.monotonic()
    done = bench("embed", "-m", "tint", "-d", "tiny", *RAY, "--address", f"{scheme}127.0.0.1:{port}")
    assert done.code == 1 and f"No Ray cluster at {scheme}127.0.0.1:{port}" in done.err and "`ray status`" in done.err
    assert time.monotonic() - began < 60, "Ray would go on asking for minutes"


@pytest.mark.slow
def test_two_of_four_are_killed_and_one_is_frozen(home, crew, long, ray):  # noqa: F811
    whole = reference(home)
    forget(crew)
    front = started("embed", "-m", "tint", "-d", "tiny", *RAY, TINT_SLEEP="0.15")
    first, second, third = wait_for(lambda: len(workers(home)) >= 3 and workers(home)[:3])
    time.sleep(1)
    os.kill(third, signal.SIGSTOP)
    for victim in (first, second):
        os.kill(victim, signal.SIGKILL)
    time.sleep(5)
    assert front.poll() is None, "it waits for the frozen one, whose claim holds for a minute"
    os.kill(third, signal.SIGCONT)
    out, err = front.communicate(timeout=200)
    assert front.returncode == 0, err
    assert err.count(LOST) == 2 and json.loads(out)["missing"] == 0
    assert parts(home / "embeddings") == whole
    assert len(seen(crew)) == 1300 and seen(crew).total() - 1300 <= 2 * BLOCK, "only the blocks in work are done again"
    assert not list((home / "embeddings").rglob("*.claim"))


@pytest.mark.slow
def test_a_run_scores_on_the_cluster_and_gives_the_same_record(home, crew, long, ray):  # noqa: F811
    names = ("run", "-m", "tint", "-b", "tint-mean", "-b", "tint-boom")
    here, there = (home.parent / n for n in ("here", "there"))
    plain = bench(*names, "--json", "--store", here, "--results", here)
    front = started(*names, *RAY, "--store", there, "--results", there)
    out, err = front.communicate(timeout=200)
    assert front.returncode == plain.code == 1 and "KeyError: 'a stranger's slip'" in err.replace('"', "'")
    found = json.loads(out)
    assert found["embedded"] == 1300 and [f["benchmark"] for f in found["failed"]] == ["tint-boom"]
    one, other = (json.load(open(r[0])) for r in (plain.json["records"], found["records"]))
    assert one["scores"] == other["scores"] and other["embed"][0]["workers"] == 4
    assert parts(here) == parts(there)


@pytest.mark.slow
def test_a_model_that_fails_on_the_cluster_says_so(home, crew, long, ray, tmp_path, monkeypatch):  # noqa: F811
    strange(monkeypatch, tmp_path, "raise IndexError('deep inside')")
    front = started("embed", "-m", "odd", "-d", "tiny", *RAY)
    out, err = front.communicate(timeout=200)
    assert front.returncode == 1 and "failed: odd on tiny: odd: embed failed with IndexError: deep inside" in err
    assert json.loads(out)["missing"] == 1300


@pytest.mark.slow
def test_one_that_never_thaws_keeps_nobody_waiting_for_more_than_a_minute(home, crew, long, ray):  # noqa: F811
    whole = reference(home)
    forget(crew)
    front = started("embed", "-m", "tint", "-d", "tiny", *RAY, TINT_SLEEP="0.1")
    frozen = wait_for(lambda: workers(home))[0]
    os.kill(frozen, signal.SIGSTOP)
    began = time.monotonic()
    try:
        out, err = front.communicate(timeout=200)
    finally:
        end = time.monotonic() + 20
        while not (gone := not _started(frozen)) and time.monotonic() < end:
            time.sleep(0.2)
        if not gone:
            os.kill(frozen, signal.SIGKILL)
    assert front.returncode == 0 and gone, err
    assert 45 < time.monotonic() - began < 120
    assert parts(home / "embeddings") == whole and seen(crew).total() - 1300 <= BLOCK
