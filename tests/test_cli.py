"""The counter: facts on stdout, everything else on stderr, exit codes, and one JSON value where --json is asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from eosin.cli import COMMANDS, main
from helpers import TINT, bench, bench_process, install, make_tiles, parts, write_plugin


@pytest.fixture(autouse=True)
def world(home, tmp_path, monkeypatch):
    install(monkeypatch, tmp_path / "site", "eosin_tint", TINT)
    (home / "data").mkdir(parents=True)
    (home / "registry.yaml").write_text("datasets: {tiny: {kind: manifest}}\nsuites: {mine: [tint-mean]}\n")
    return make_tiles(home / "data" / "tiny")


@pytest.mark.parametrize(
    "args",
    [
        ("run", "-m", "tint", "-b", "tint-mean"),
        ("run", "-m", "tint", "-s", "mine", "--dry-run"),
        ("run", "-m", "tint", "-b", "tint-boom"),
        ("run", "-m", "tint", "-b", "idc-knn"),
        ("embed", "-m", "tint", "-d", "tiny"),
        ("embed", "-m", "tint", "-d", "tiny", "--status"),
        ("list", "models"),
        ("list", "suites"),
        ("show", "tint"),
        ("show", "g2l-knn@1"),
        ("show", "tint-mean"),
        ("data", "list"),
        ("data", "where", "idc"),
        ("data", "index", "tiny"),
        ("data", "check", "tiny"),
        ("store", "ls"),
        ("store", "verify"),
        ("store", "gc"),
        ("leaderboard",),
        ("plugins",),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_json_is_one_value_on_stdout_and_nothing_else(args):
    done = bench(*args, "--json")
    value = json.loads(done.out)
    assert isinstance(value, (dict, list)) and done.out.count("\n") == 1
    assert "Traceback" not in done.err
    text = bench(*args)
    assert text.code == done.code and not text.out.lstrip().startswith(("{", "["))


def test_run_prints_the_keys_of_the_contract():
    done = bench("run", "-m", "tint", "-b", "tint-mean", "--json").json
    assert set(done) >= {"records", "embedded", "reused", "failed", "missing"}


def test_data_index_prints_the_keys_of_the_contract(world):
    found = bench("data", "index", "tiny", world, "--json").json
    assert set(found) >= {"dataset", "items", "classes", "counts", "warnings", "table"}
    assert (found["items"], found["classes"], found["counts"]) == (60, ["a", "b"], {"a": 30, "b": 30})
    header = open(found["table"]).readline().strip().split(",")
    assert set(header) >= {"id", "source", "label", "split", "group", "slide", "centre", "mpp"}


@pytest.mark.parametrize("word", [*COMMANDS, ""])
def test_every_command_has_help(word):
    done = bench(*([word] if word else []), "--help")
    assert done.code == 0 and "Usage:" in done.out and not done.err


def test_embed_counts(home):
    done = bench("embed", "-m", "tint", "-d", "tiny", "--json").json
    assert (done["embedded"], done["reused"], done["missing"]) == (60, 0, 0)
    again = bench("embed", "-m", "tint", "-d", "tiny", "--json").json
    assert (again["embedded"], again["reused"], again["missing"]) == (0, 60, 0)
    assert (
        bench("embed", "-m", "tint", "-d", "tiny", "--view", "rot90", "--view", "jpeg-30", "--status", "--json").json[
            "missing"
        ]
        == 120
    )


def test_embed_says_what_failed_and_what_was_kept(world):
    (world / "t" / "0003.png").write_bytes(b"")
    done = bench("embed", "-m", "tint", "-d", "tiny", "--json")
    assert done.code == 1 and "t/0003.png" in done.json["failed"][0]["error"] and "failed: tint on tiny" in done.err
    assert (done.json["embedded"], done.json["missing"]) == (0, 60)


def test_the_same_names_twice_are_done_once():
    done = bench("run", "-m", "tint", "-m", "tint", "-b", "tint-mean", "-s", "mine", "--json").json
    assert len(done["records"]) == 1 and done["embedded"] == 60


def test_the_run_table_shows_the_floor(home):
    done = bench("run", "-m", "tint", "-b", "tint-mean")
    head = done.out.splitlines()[0].split()
    assert done.code == 0 and head[2:] == ["majority", "color-stats", "tint"]
    assert "0.500" in done.out and "1 record(s)" in done.err


def test_a_store_elsewhere(home, tmp_path):
    bench("embed", "-m", "tint", "-d", "tiny", "--store", tmp_path / "elsewhere")
    assert parts(tmp_path / "elsewhere") and not (home / "embeddings").exists()


def test_an_error_that_nobody_foresaw_is_still_a_sentence(monkeypatch):
    from eosin import plan

    monkeypatch.setattr(plan.Planner, "plan", lambda *a: 1 / 0)
    done = bench("run", "-m", "tint", "-b", "tint-mean")
    assert done.code == 1 and "ZeroDivisionError" in done.err and "--debug" in done.err and "Traceback" not in done.err


def test_commands_of_plugins_stand_beside_ours_and_cannot_replace_them(tmp_path, monkeypatch):
    monkeypatch.delattr(main, "_found", raising=False)  # what this process found before
    write_plugin(
        tmp_path / "site",
        "eosin_cmd",
        "import click, eosin\n@eosin.hookimpl\ndef provide_commands(cli):\n"
        "    @cli.command()\n    def greet():\n        'Say hello.'\n        print('hello')\n"
        "    @cli.command()\n    def run():\n        print('replaced')\n",
    )
    assert bench("greet").out == "hello\n" and "Say hello." in bench("--help").out
    assert "replaced" not in bench("run").out
    monkeypatch.delattr(main, "_found")


def test_ctrl_c_ends_at_once_and_keeps_what_is_stored(home, tmp_path, world):
    """As a user does it: SIGINT to a running command; the next run goes on from there."""
    import shutil

    shutil.rmtree(world)
    make_tiles(world, 1300)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "TINT_SLEEP": "0.03", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "eosin.cli", "embed", "-m", "tint", "-d", "tiny"]
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    deadline = time.time() + 60
    while not parts(home / "embeddings") and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode not in (0, -signal.SIGKILL) and "Traceback" not in err
    kept = parts(home / "embeddings")
    assert 1 <= len(kept) < 6 and not list((home / "embeddings").rglob("*.claim"))
    assert bench("embed", "-m", "tint", "-d", "tiny", "--json").json["reused"] == 256 * len(kept)


def test_a_process_keeps_stdout_clean_and_gives_the_code(tmp_path):
    done = bench_process("list", "models", "--json", PYTHONPATH=str(tmp_path / "site"))
    assert done.code == 0 and {m["model"] for m in done.json["models"]} >= {"tint", "color-stats"} and not done.err
    assert bench_process("run", "-m", "nosuch", "-b", "tint-mean").code == 2


def test_a_metric_that_the_protocol_does_not_give_is_said_before_anything_is_embedded(home, world):
    (home / "registry.yaml").write_text(
        "benchmarks: {bad: {dataset: tiny, protocol: g2l-knn@1, metric: auroc}}\ndatasets: {tiny: {kind: manifest}}\n"
    )
    done = bench("run", "-m", "color-stats", "-b", "bad", "--json")
    assert done.code == 1 and "none of accuracy, balanced_accuracy" in done.json["failed"][0]["error"]
    assert done.json["embedded"] == 0
