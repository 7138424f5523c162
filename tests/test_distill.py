"""The engine of distillation: it learns, it can be killed, two processes are one, and what comes out is a model."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from eosin.table import Table
from eosin.trainset import Order, choose
from helpers import bench, bench_process, install, make_tiles, write_plugin

torch = pytest.importorskip("torch")

DOCS = Path(__file__).parents[1] / "docs"
COSINE = re.search(r"```python\n(# eosin_cosine.*?)```", (DOCS / "write-a-recipe.md").read_text(), re.S).group(1)
MODELS = """
models:
  teacher: {kind: timm, arch: test_vit, arch_options: {img_size: 32}, size: 32, dim: 64, seed: 1}
  pupil: {kind: timm, arch: test_vit, arch_options: {img_size: 32, depth: 2}, size: 32, dim: 64, seed: 2}
  locked: {kind: timm, arch: test_vit, arch_options: {img_size: 32}, size: 32, dim: 64, licence: CC-BY-NC-ND-4.0}
"""


@pytest.fixture
def room(home, tmp_path, monkeypatch):
    """A home with two tiny models, the docs' recipe, and 40 tiles of 32 px."""
    install(monkeypatch, tmp_path / "plugin", "eosin_cosine", COSINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plugin"))
    home.mkdir(exist_ok=True)
    (home / "registry.yaml").write_text(MODELS)
    make_tiles(tmp_path / "tiles", 40, size=32)
    (tmp_path / "tiles" / "tiles.csv").unlink()
    return tmp_path


def words(room, out, *more, steps=6, batch=8):
    return [
        "distill", "cosine", "--teacher", "teacher", "--student", "pupil", "--tiles", room / "tiles", "--out", room / out,
        "--steps", steps, "--batch-size", batch, "--checkpoint-every", 2, "--workers", 2, "--json", *more,
    ]  # fmt: skip


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(a, b, atol=0.0):
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=0, atol=atol) for k in a)


def test_a_recipe_from_the_docs_makes_a_model(room, home):
    done = bench(*words(room, "run", "--probe-every", 3, "--held-out", 8, steps=12))
    assert done.code == 0, done
    fact = done.json
    assert fact["loss"]["last"] < fact["loss"]["first"] and fact["tiles"] == 32 and fact["model"] == "cosine-run"
    assert fact["probe"]["after"]["cka"] != fact["probe"]["before"]["cka"]
    out = room / "run"
    lines = [json.loads(x) for x in (out / "train.jsonl").read_text().splitlines()]
    steps = [x for x in lines if "loss" in x]
    assert [x["step"] for x in steps] == list(range(1, 13))
    assert steps[0]["lr"] == pytest.approx(1e-3) and steps[6]["lr"] == pytest.approx(0.5e-3)
    used = (out / "tiles.csv").read_text().splitlines()
    assert len(used) == 41 and sum(x.endswith("held-out") for x in used) == 8
    assert (out / "curves.png").read_bytes()[:4] == b"\x89PNG"
    make_tiles(home / "data" / "little", 20, size=32)
    (room / "more.yaml").write_text(
        "datasets: {little: {kind: manifest, mpp: 0.5}}\n"
        "benchmarks: {little-knn: {dataset: little, protocol: g2l-knn@1, metric: accuracy, options: {n_folds: 2, k: 3}}}"
    )
    run = bench("run", "-m", out, "-b", "little-knn", "--registry", room / "more.yaml", "--json")
    assert run.code == 0, run
    record = json.loads(Path(run.json["records"][0]).read_text())
    assert record["model"]["name"] == "cosine-run" and record["model"]["distilled"]["teacher"].startswith("teacher@")
    assert "lr" not in str(record["model"]["distilled"]["deviations"])
    show = bench("show", out, "--json").json
    assert show["weights"] == "here" and show["dim"] == 64


@pytest.mark.parametrize(
    "kill_at", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_as_it_would_have_gone(room, kill_at):
    assert bench_process(*words(room, "whole", "--probe-every", 2, "--held-out", 6)).code == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "eosin.cli", *map(str, words(room, "cut", "--probe-every", 2, "--held-out", 6))],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as bench_process has it: equal bytes need equal threads
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    log = room / "cut" / "train.jsonl"
    until = time.time() + 120
    while time.time() < until and process.poll() is None:
        if log.is_file() and log.read_text().count('"loss"') >= kill_at:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert bench_process(*words(room, "cut", "--probe-every", 2, "--held-out", 6, "--resume")).code == 0
    assert same(weights(room / "whole"), weights(room / "cut"))
    read = [[json.loads(x) for x in (room / f / "train.jsonl").read_text().splitlines()] for f in ("whole", "cut")]
    kept = [[(x["step"], x.get("loss"), x.get("cka")) for x in lines] for lines in read]
    assert kept[0] == kept[1]
    again = bench(*words(room, "cut", "--probe-every", 2, "--held-out", 6, "--resume"))
    assert again.code == 0 and again.json["steps"] == 6, "after the end --resume does nothing"


def test_sigterm_keeps_the_step_in_work(room):
    command = [sys.executable, "-m", "eosin.cli", *map(str, words(room, "run", steps=4000))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = room / "run" / "train.jsonl"
    while not (log.is_file() and log.stat().st_size) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "--resume goes on" in err and "Traceback" not in err
    step = int(re.search(r"step (\d+) of", err).group(1))
    assert torch.load(room / "run" / "checkpoint.pt", weights_only=True)["step"] == step


@pytest.mark.slow
def test_two_processes_are_one(room):
    assert bench_process(*words(room, "one")).code == 0
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29512",
        "-m",
        "eosin.cli",
    ]
    done = subprocess.run([*command, *map(str, words(room, "two"))], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert same(weights(room / "one"), weights(room / "two"), atol=1e-4)
    assert json.loads(done.stdout)["steps"] == 6, "only the first process answers"


def test_what_is_refused(room, tmp_path):
    def refused(*command):
        done = bench(*command)
        assert done.code and "Traceback" not in done.err, done
        return done.err

    assert "fewer than a batch of 64" in refused(*words(room, "a", batch=64))
    assert "`bench list recipes`" in refused(
        "distill", "cosin", "--teacher", "teacher", "--student", "pupil", "--tiles", room / "tiles", "--out", room / "b"
    )
    assert "Give either --slides DIR or --tiles DIR" in refused(
        "distill", "cosine", "--teacher", "teacher", "--student", "pupil", "--out", room / "b"
    )
    assert "Missing --student" in refused(
        "distill", "cosine", "--teacher", "teacher", "--tiles", room / "tiles", "--out", room / "b"
    )
    assert "no option nonsense" in refused(*words(room, "c", "--option", "nonsense=1"))
    assert "cannot be shared by 1 processes in 3 pieces" in refused(*words(room, "d", "--accumulate", 3))
    locked = [w if w != "pupil" else "locked" for w in words(room, "e")]
    assert "--accept-licence" in refused(*locked)
    assert bench(*locked, "--accept-licence").code == 0
    given = [w if w != "teacher" else f"precomputed:{room / 'tiles'}" for w in words(room, "f")]
    assert "so it cannot teach" in refused(*given)
    assert bench(*words(room, "g", steps=2)).code == 0
    assert "--resume, or name another --out" in refused(*words(room, "g", steps=2))
    assert "steps was 2 and is 3" in refused(*words(room, "g", "--resume", steps=3))
    (room / "g" / "checkpoint.pt").write_bytes(b"broken")
    assert "cannot be read" in refused(*words(room, "g", "--resume", steps=2))
    (room / "none").mkdir()
    assert "holds no image" in refused(*[w if w != room / "tiles" else room / "none" for w in words(room, "h")])


def test_a_broken_tile_is_named_and_replaced(room):
    (room / "tiles" / "t" / "0003.png").write_bytes(b"no image")
    done = bench(*words(room, "run", batch=20))
    assert done.code == 0 and "t/0003.png" in str(done.json["skipped"])
    used = {row["id"]: row["use"] for row in csv.DictReader((room / "run" / "tiles.csv").open())}
    assert [name for name, use in used.items() if use == "broken"] == ["t/0003.png"] and "train" in used.values()


def test_a_loss_that_is_not_a_number_stops_with_the_tiles(room, monkeypatch, tmp_path):
    source = COSINE.replace("return (1 - torch", "return (math.nan if step == 3 else 1) * (1 - torch")
    write_plugin(tmp_path / "plugin", "eosin_cosine", source)
    done = bench_process(*words(room, "run"))
    assert done.code == 1 and "loss is nan at step 3" in done.err and "t/00" in done.err and "Traceback" not in done.err
    assert torch.load(room / "run" / "checkpoint.pt", weights_only=True)["step"] == 2


def test_small_tiles_and_large_ones(room, tmp_path):
    make_tiles(tmp_path / "small", 12, size=20)
    make_tiles(tmp_path / "large", 12, size=50)
    for name, said in (("small", True), ("large", False)):
        command = [w if w != room / "tiles" else tmp_path / name for w in words(room, f"run-{name}", steps=2)]
        assert bench(*command).code == 0
        assert ("were enlarged" in (room / f"run-{name}" / "card.yaml").read_text()) == said


def test_registered_weights(room, home):
    assert bench(*words(room, "run", steps=2)).code == 0
    done = bench("distill", "--register", "mine", "--out", room / "run", "--json")
    assert done.code == 0 and (home / "models" / "mine" / "model.safetensors").is_file()
    said = bench("distill", "--register", "mine", "--out", room / "run").out
    assert "No card is called mine" in said and bench("show", home / "models" / "mine").code == 0
    assert "do not fit" in bench("distill", "--register", "g2l-brca", "--out", room / "run").err
    assert "no finished model" in bench("distill", "--register", "mine", "--out", room / "nothing").err


def test_continued_control(room):
    done = bench(*words(room, "run", "--control", "continued", steps=2))
    assert done.code == 0 and done.json["model"] == "cosine-run-control"
    assert "a control" in (room / "run" / "card.yaml").read_text()


def test_exclusion_meets_names_as_people_write_them():
    names = ["brca/TCGA-A1-0001-01Z.ab", "flat", "tcga-a2-0002-01z.cd", "TCGA-A3-0003.svs", "other"]
    sources = [
        "brca/TCGA-A1-0001-01Z.ab.svs",
        "TCGA-A9-0009_3.jpg",
        "tcga-a2-0002-01z.cd.svs",
        "TCGA-A3-0003.svs",
        "o.svs",
    ]
    table = Table({"id": np.array(list("abcde")), "source": np.array(sources), "slide": np.array(names), "group": np.array(["", "", "", "", "P5"])})  # fmt: skip
    for lines, kept in (
        (["TCGA-A1-0001"], "bcde"), (["TCGA-A9-0009"], "acde"), (["TCGA-A2-0002"], "abde"),
        (["TCGA-A3-0003.svs", "tcga-a1-0001-01z.ab.svs"], "bce"), (["p5"], "abcd"), (["P"], "abcde"),
    ):  # fmt: skip
        found = choose(table, 0, 0, 0, lines, 0)
        assert "".join(table["id"][found.rows]) == kept and found.excluded == 5 - len(kept), lines
        assert found.idle == (("P",) if lines == ["P"] else ()), lines


def test_a_table_or_an_array_may_be_named_itself(room):
    make_tiles(room / "listed", 24, size=32)
    done = bench(*[room / "listed" / "tiles.csv" if w == room / "tiles" else w for w in words(room, "a")])
    assert done.code == 0 and done.json["tiles"] == 24
    image = next((room / "listed").rglob("*.png"))
    assert "is one file" in bench(*[image if w == room / "tiles" else w for w in words(room, "b")]).err


@pytest.mark.parametrize(
    "more, said",
    [
        (("--probe", "phantom"), "add --probe-every"),
        (("--probe-every", 1, "--held-out", 0), "nothing to look at"),
        (("--coordinates", "co"), "are of slides"),
        (("--option", "lr=-1"), "lr=-1"),
        (("--option", "steps=0"), "steps=0. Give 1 or more"),
    ],
)
def test_what_would_be_ignored_or_make_no_sense(room, more, said):
    done = bench(*(w for w in words(room, "run", *more) if not (more[1] == "steps=0" and w in ("--steps", 6))))
    assert done.code == 2 and said in done.err, done


@pytest.mark.slow
def test_a_gradient_that_is_not_a_number_is_never_stepped(room, tmp_path):
    steep = ' + 0 * (student[0]["cls"] - student[0]["cls"].detach()).pow(2).sum().sqrt()'  # 0, and of slope 0 / 0
    source = COSINE.replace('student[0]["cls"])).mean()', 'student[0]["cls"])).mean()' + steep)
    assert source != COSINE
    write_plugin(tmp_path / "plugin", "eosin_cosine", source)
    done = bench_process(*words(room, "run"))
    assert done.code == 1 and "gradient is nan at step 0" in done.err and not (room / "run" / "checkpoint.pt").exists()


def test_broken_tiles_are_remembered_over_an_interruption(room):
    (room / "tiles" / "t" / "0003.png").write_bytes(b"no image")
    assert bench(*words(room, "run", steps=5, batch=8)).code == 0  # an epoch: all tiles were met
    state = torch.load(room / "run" / "checkpoint.pt", weights_only=True)
    assert list(state["broken"]) == ["t/0003.png"]


def test_tiles_are_held_out_also_where_nobody_looks_at_them(room):
    done = bench(*words(room, "run", "--held-out", 4, steps=2))
    assert done.code == 0 and done.json["tiles"] == 36
    used = list(csv.DictReader((room / "run" / "tiles.csv").open()))
    assert sum(row["use"] == "held-out" for row in used) == 4


def test_choice_of_slides_and_tiles():
    n = 300
    slide = np.array([f"TCGA-A{i % 30:02d}-slide" for i in range(n)])
    table = Table(
        {"id": np.arange(n).astype(str), "source": slide, "slide": slide, "group": np.array([s[:8] for s in slide])}
    )
    chosen = choose(table, 7, 4, 20, ["TCGA-A01", "TCGA-A02-slide"], seed=3)
    slides = set(slide[chosen.rows])
    assert len(slides) == 7 == chosen.slides and chosen.excluded == 2 and len(chosen.rows) == 28
    assert not slides & {"TCGA-A01-slide", "TCGA-A02-slide"} and not slides & set(slide[chosen.held_out])
    assert len(chosen.held_out) == 20
    other = choose(table, 7, 4, 20, [], seed=4)
    assert set(slide[other.rows]) != slides
    patient = np.array([f"p{i % 12}" for i in range(n)])
    loose = Table({"id": np.arange(n).astype(str), "source": np.arange(n).astype(str), "group": patient})
    kept = choose(loose, 0, 0, 30, [], seed=3)
    assert len(kept.held_out) == 30 and not set(patient[kept.rows]) & set(patient[kept.held_out]), "whole patients"
    patient = np.array([f"p{i // 60}" for i in range(n)])  # five of six slides each
    few = Table({"id": np.arange(n).astype(str), "source": slide, "slide": slide, "group": patient})
    kept = choose(few, 0, 0, 10, [], seed=3)
    assert len(kept.held_out) == 10 and not set(slide[kept.rows]) & set(slide[kept.held_out]), "whole slides at least"
    order = Order(np.arange(10), seed=0)
    epochs = [order(0, 10), order(10, 20)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10)) and epochs[0] != epochs[1]
    assert Order(np.arange(10), seed=0)(7, 13) == [*epochs[0][7:], *epochs[1][:3]], "any place can be asked for"


def test_from_slides_with_one_that_cannot_be_read(room, tmp_path):
    from slide_files import pyramid, tissue

    for i in range(3):
        picture = tissue(512, 384, (64, 64, 256, 256), seed=i)
        pyramid(tmp_path / "slides" / f"TCGA-A{i}.tif", [picture])
    (tmp_path / "slides" / "broken.tif").write_bytes(b"II*\0" + b"\0" * 100)
    command = [
        w
        for w in words(room, "run", "--size", 32, "--mpp", 0.5, "--max-tiles", 20)
        if w not in ("--tiles", room / "tiles")
    ]
    done = bench(*command, "--slides", tmp_path / "slides", "--exclude", tmp_path / "not.txt")
    assert done.code == 2 and "neither a text file nor a dataset" in done.err
    (tmp_path / "not.txt").write_text("TCGA-A1  # a patient of a benchmark\n")
    done = bench(*command, "--slides", tmp_path / "slides", "--exclude", tmp_path / "not.txt")
    assert done.code == 0, done
    assert "broken.tif" in str(done.json["skipped"]) and done.json["slides"] == 2 and done.json["tiles"] == 40
    assert "TCGA-A1" not in (room / "run" / "tiles.csv").read_text()


def test_names_that_no_card_may_have(room, home):
    assert bench(*words(room, "st é 1", steps=2)).code == 0
    assert (room / "st é 1" / "card.yaml").read_text().startswith("name: cosine-st---1\n")
    for name in ("../../out", "st é", ".hidden"):
        done = bench("distill", "--register", name, "--out", room / "st é 1")
        assert done.code == 2 and "letters, digits" in done.err


def test_resume_says_what_differs(room):
    assert bench(*words(room, "run", steps=2)).code == 0
    done = bench(*words(room, "run", "--resume", "--option", "lr=0.5", steps=2))
    assert done.code == 2 and "lr was 0.001 and is 0.5" in done.err and "batch_size" not in done.err
