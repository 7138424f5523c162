"""`bench run`: what is recorded, what is reused, what is repaired; what fails leaves the rest standing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from eosin import store
from helpers import TINT, bench, install, make_tiles, parts, read_table, write_plugin, write_table


@pytest.fixture(autouse=True)
def tint(home, tmp_path, monkeypatch):
    traces = tmp_path / "traces"
    traces.mkdir()
    monkeypatch.setenv("TINT_TRACES", str(traces))
    install(monkeypatch, tmp_path / "site", "eosin_tint", TINT)
    (home / "data").mkdir(parents=True)
    (home / "registry.yaml").write_text(
        "datasets: {tiny: {kind: manifest}, gone: {kind: manifest, tree: gone/tiles.csv}}\n"
    )
    return traces


@pytest.fixture
def tiny(home):
    return make_tiles(home / "data" / "tiny")


def run(*args, model="tint", benchmark="tint-mean"):
    return bench("run", "--model", model, "--benchmark", benchmark, *args, "--json")


def record(result) -> dict:
    (path,) = result.json["records"]
    return json.loads(Path(path).read_text())


def traces(folder: Path) -> dict[str, int]:
    return {p.name: len(p.read_text().split()) for p in folder.iterdir()}


def forget(folder: Path) -> None:
    for p in folder.iterdir():
        p.unlink()


def test_a_run_scores_and_records(tiny, home):
    done = run()
    assert done.code == 0, done
    assert done.json.keys() >= {"records", "embedded", "reused", "failed", "missing"}
    assert (done.json["embedded"], done.json["reused"]) == (60, 0)
    found = record(done)
    assert found["scores"]["accuracy"].keys() == {"mean", "std", "low", "high", "values"}
    assert found["scores"]["accuracy"]["mean"] == 1.0, "the tints are easy to tell apart"
    assert found["floor"]["majority"]["accuracy"] == 0.5
    assert found["dataset"]["rows"] == 60 and found["dataset"]["counts"] == {"a": 30, "b": 30}
    assert str(home) not in json.dumps(found["model"]) + json.dumps(found["scores"])


def test_predictions_are_kept_beside_the_record(tiny):
    done = run()
    path = Path(done.json["records"][0])
    with np.load(path.with_name(record(done)["predictions"])) as kept:
        assert set(kept.files) >= {"id", "fold", "seed", "y", "score"}
        assert len({len(kept[n]) for n in kept.files}) == 1 and len(kept["id"]) == 20
        assert kept["id"][1] == "t/0003.png" and kept["score"].shape == (20, 2)
        assert (kept["score"].argmax(1) == kept["y"]).mean() == record(done)["scores"]["accuracy"]["mean"]


CARD = "name: {name}\nkind: timm\narch: test_vit\narch_options: {{img_size: 32}}\nsize: 32\nseed: {seed}\n"


def test_two_models_of_one_name_have_a_column_each(tiny, tmp_path):
    """Two checkpoints of one network, as anybody has them; and one that takes the name of the floor."""
    for file, name, seed in (("a", "ours", 1), ("b", "ours", 2), ("c", "color-stats", 3)):
        (tmp_path / f"{file}.yaml").write_text(CARD.format(name=name, seed=seed))
    done = bench("run", *(w for f in "abc" for w in ("-m", tmp_path / f"{f}.yaml")), "-b", "tint-mean")
    assert done.code == 0, done
    head = next(line for line in done.out.splitlines() if line.startswith("benchmark")).split()
    names = [h.split("@")[0] for h in head[3:]]
    assert names == ["color-stats", "color-stats", "ours", "ours"] and len(set(head)) == 7, head


def test_the_majority_is_of_the_rows_that_were_tested(tiny, home):
    """24 rows of each class, of which the given split tests 4 and 16."""
    rows = [
        r | {"split": "test" if i < 32 and (i % 2 or i < 8) else "train"} for i, r in enumerate(read_table(tiny)[:48])
    ]
    write_table(tiny, rows)
    (home / "registry.yaml").write_text(
        "datasets: {tiny: {kind: manifest}}\nbenchmarks: {given: {dataset: tiny, protocol: g2l-knn@1, metric: accuracy, "
        "options: {split: given, k: 3, n_components: 4}}}\n"
    )
    floor = record(bench("run", "-m", "tint", "-b", "given", "--no-floor", "--json"))["floor"]["majority"]
    assert floor["accuracy"] == pytest.approx(16 / 20) and floor["balanced_accuracy"] == 0.5


def test_a_readout_that_nothing_has_is_no_success(tiny):
    done = bench("run", "-m", "tint", "-b", "tint-mean", "--readout", "cls+men")
    assert done.code == 2 and "no readout men" in done.err
    assert bench("embed", "-m", "tint", "-d", "tiny").code == 0
    done = bench("store", "export", "tint/tiny", "--out", tiny / "e.npz", "--readout", "men")
    assert done.code == 2 and "no readout men" in done.err and not (tiny / "e.npz").exists()


def test_the_same_command_twice_gives_the_same_bytes(tiny, home):
    """From the store, and again from nothing."""
    import shutil

    def bytes_of(done) -> tuple[bytes, bytes]:
        path = Path(done.json["records"][0])
        return json.dumps(json.loads(path.read_text())["scores"]).encode(), path.with_name(
            path.stem + ".predictions.npz"
        ).read_bytes()

    first, second = bytes_of(run()), bytes_of(run())
    shutil.rmtree(home / "embeddings")
    shutil.rmtree(home / "indexes")
    third = bytes_of(run("--workers", "3"))
    assert first == second == third


def test_a_second_run_builds_nothing_and_sees_no_tile(tiny, tint):
    run()
    assert traces(tint) == {"built": 1, "seen": 60}
    forget(tint)
    done = run()
    assert (done.json["embedded"], done.json["reused"]) == (0, 60)
    assert traces(tint) == {}, "no model built, no forward pass"


def test_a_second_run_opens_no_image(tiny, monkeypatch):
    from PIL import Image

    run()
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("an image was opened"))
    assert run().code == 0


def test_embed_then_run_embeds_nothing_more(tiny, tint):
    assert bench("embed", "-m", "tint", "-d", "tiny", "--json").json["embedded"] == 60
    forget(tint)
    assert run().json["embedded"] == 0 and traces(tint) == {}


def test_a_dry_run_does_nothing(tiny, tint, home):
    done = run("--dry-run")
    assert done.code == 0 and done.json["plan"][0]["embed"] == 60 and done.json["plan"][0]["tiles"] == 60
    assert traces(tint) == {} and not parts(home / "embeddings") and not (home / "results").exists()
    text = bench("run", "-m", "tint", "-b", "tint-mean", "--dry-run").out
    assert "tiny" in text and "60" in text and str(tiny) in text
    run()
    assert run("--dry-run").json["plan"][0] | {"embed": 0, "reuse": 60} == run("--dry-run").json["plan"][0]


def test_another_label_is_another_record_of_the_same_embeddings(tiny, tint):
    first = run()
    rows = read_table(tiny)
    rows[1]["label"] = "a"
    write_table(tiny, rows)
    forget(tint)
    second = run()
    assert first.json["records"] != second.json["records"] and Path(first.json["records"][0]).exists()
    assert traces(tint) == {}


# ---- what fails leaves the rest


def test_one_failing_benchmark_leaves_the_others(tiny):
    done = bench("run", "-m", "tint", "-b", "tint-boom", "-b", "tint-mean", "--json")
    assert done.code == 1
    assert len(done.json["records"]) == 1 and Path(done.json["records"][0]).exists()
    (failed,) = done.json["failed"]
    assert failed["benchmark"] == "tint-boom" and "KeyError" in failed["error"] and "--debug" in failed["error"]
    assert "failed: tint on tint-boom" in done.err and "Traceback" not in done.err


def test_debug_shows_the_traceback(tiny):
    assert "Traceback" in bench("run", "-m", "tint", "-b", "tint-boom", "--debug").err


BAD = '''
import eosin
import eosin.errors


class Broken(eosin.FeatureExtractor):
    card = eosin.ModelCard("broken", size=16)
    def build(self):
        raise RuntimeError("no such layer")


class Away(eosin.FeatureExtractor):
    card = eosin.ModelCard("away", size=16)
    def build(self):
        raise eosin.errors.MissingError("The weights of away are missing. Fetch them.")


class Loud(eosin.FeatureExtractor):
    card = eosin.ModelCard("loud", size=16)
    def build(self):
        import torch
        print("loading weights ...")
        return torch.nn.Flatten()


class Forgot(eosin.FeatureExtractor):
    card = eosin.ModelCard("forgot", size=16)
    def build(self):
        pass


class Bare(eosin.FeatureExtractor):
    card = eosin.ModelCard("bare", size=16)


class Dotted(eosin.FeatureExtractor):
    card = eosin.ModelCard("dotted", size=16)
    def build(self):
        raise RuntimeError("There is no such layer.")


class Bench(eosin.Benchmark):
    def __init__(self, name, needs=None, result=None):
        super().__init__(eosin.BenchmarkCard(name, dataset="tiny", metric="m"))
        self._needs, self._result = needs, result
    def needs(self):
        return self._needs() if self._needs else super().needs()
    def score(self, emb):
        return self._result(emb) if self._result else {"m": 0.5}


def slip():
    raise ValueError("needs() went wrong")


@eosin.hookimpl
def provide_models():
    return [Broken(), Away(), Loud(), Forgot(), Bare(), Dotted()]


@eosin.hookimpl
def provide_benchmarks():
    return [
        Bench("plain"),
        Bench("bad-needs", slip),
        Bench("bad-view", lambda: {"": eosin.Need("tiny", view="sepia")}),
        Bench("bad-dataset", lambda: {"": eosin.Need("tyni")}),
        Bench("bad-readout", lambda: {"": eosin.Need("tiny", readout="grid")}),
        Bench("missing-data", lambda: {"": eosin.Need("gone")}),
        Bench("bad-metric", result=lambda e: {"other": 1.0}),
        Bench("gives-none", result=lambda e: None),
        Bench("gives-float", result=lambda e: 0.5),
        Bench("gives-word", result=lambda e: "high"),
        Bench("gives-nothing", result=lambda e: {}),
        Bench("gives-text", result=lambda e: {"m": "high"}),
        Bench("gives-nan", result=lambda e: {"m": [0.5, float("nan")]}),
        Bench("nan-details", result=lambda e: eosin.Scores({"m": 1.0}, details={"per": [1.0, float("nan")], "deep": {"x": float("nan")}})),
        Bench("stops", result=lambda e: exit(7)),
    ]
'''  # fmt: skip


@pytest.fixture
def bad(tmp_path, monkeypatch):
    install(monkeypatch, tmp_path / "site", "eosin_bad", BAD)


@pytest.mark.parametrize(
    "name", ["bad-needs", "bad-view", "bad-dataset", "bad-metric", "gives-none", "gives-text", "stops"]
)
def test_a_benchmark_that_fails_in_any_way_is_named_and_the_others_run(tiny, bad, name):
    done = bench("run", "-m", "tint", "-b", name, "-b", "tint-mean", "--json")
    assert done.code == 1, done
    assert [f["benchmark"] for f in done.json["failed"]] == [name] and len(done.json["records"]) == 1
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gives-none", "score returned NoneType; return a mapping of metric to number (docs/write-a-benchmark.md)."),
        ("gives-float", "score returned float; return a mapping of metric to number (docs/write-a-benchmark.md)."),
        ("gives-word", "score returned str; return a mapping of metric to number (docs/write-a-benchmark.md)."),
        ("gives-text", "score gave str for m; return a number, or one number a fold or seed (docs/write-a-benchmark.md)."),
        ("gives-nothing", "score() gave nothing, and the card's metric is 'm'. Make them agree."),
    ],
)  # fmt: skip
def test_a_score_that_is_no_mapping_of_numbers_says_what_is_wanted(tiny, bad, name, said):
    assert run(benchmark=name).json["failed"][0]["error"] == f"{name}: {said}"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("forgot", "build() returned NoneType; return a torch module (docs/write-a-model.md)."),
        ("bare", "Bare must define build() or embed(batch); see docs/write-a-model.md."),
        ("dotted", "build failed with RuntimeError: There is no such layer. Run with --debug for the traceback."),
    ],
)
def test_a_model_that_cannot_be_built_says_why_in_a_sentence(tiny, bad, model, said):
    assert run(model=model, benchmark="plain").json["failed"][0]["error"] == f"{model}: {said}"


def test_nan_is_null_with_a_reason(tiny, bad):
    found = record(run(benchmark="gives-nan"))
    assert found["scores"]["m"]["values"] == [0.5, None] and found["scores"]["m"]["mean"] is None
    assert found["reasons"] == {"m": "not a number"}
    assert record(run(benchmark="nan-details"))["details"]["per"] == [1.0, None]


def test_what_does_not_apply_is_said_and_not_failed(tiny, bad):
    done = bench("run", "-m", "tint", "-b", "bad-readout", "-b", "tint-mean", "--json")
    assert done.code == 0 and len(done.json["records"]) == 1 and not done.json["failed"]
    assert "not applicable: tint on bad-readout" in done.err


def test_a_failing_model_leaves_the_other_models(tiny, bad):
    done = bench("run", "-m", "broken", "-m", "tint", "-b", "plain", "--json")
    assert done.code == 1 and len(done.json["records"]) == 1
    assert "build failed with RuntimeError: no such layer" in done.json["failed"][0]["error"]


def test_missing_data_stops_before_anything_is_done(tiny, bad, tint):
    done = bench("run", "-m", "tint", "-b", "missing-data", "-b", "tint-mean", "--json")
    assert done.code == 3 and done.json["records"] == [] and "Dataset gone is missing" in done.json["missing"][0]
    assert "gone/tiles.csv" in done.err and "--available" in done.err and traces(tint) == {}


def test_available_runs_what_is_there(tiny, bad):
    done = bench("run", "-m", "tint", "-b", "missing-data", "-b", "tint-mean", "--available", "--json")
    assert done.code == 3 and len(done.json["records"]) == 1 and len(done.json["missing"]) == 1


def test_a_model_whose_weights_turn_out_to_be_missing(tiny, bad):
    done = bench("run", "-m", "away", "-b", "plain", "--json")
    assert done.code == 3 and "away" in done.json["missing"][0] and "Traceback" not in done.err
    assert bench("embed", "-m", "away", "-d", "tiny").code == 3


def test_what_a_plugin_prints_is_not_in_the_json(tiny, bad):
    done = run(model="loud", benchmark="plain")
    assert done.code == 0 and len(done.json["records"]) == 1
    assert "loading weights" in done.err


# ---- repair


@pytest.fixture
def large(home):
    return make_tiles(home / "data" / "tiny", 600)


def test_a_flipped_byte_is_found_named_and_embedded_again(large, home, tint):
    scores = record(run())["scores"]
    whole = parts(home / "embeddings")
    part = sorted((home / "embeddings").rglob("part-*.h5"))[1]
    raw = bytearray(part.read_bytes())
    raw[3000] ^= 1
    part.write_bytes(raw)
    forget(tint)
    done = run()
    assert done.code == 0 and done.json["repaired"] == [str(part)] and str(part) in done.err
    assert (done.json["embedded"], done.json["reused"]) == (256, 344)
    assert traces(tint)["seen"] == 256 and parts(home / "embeddings") == whole
    assert record(done)["scores"] == scores
    assert part.with_name(part.name + ".damaged").exists()


@pytest.mark.parametrize("readout", [[], ["--readout", "cls"], ["--readout", "mean"]])
def test_a_flipped_byte_anywhere_is_repaired_by_the_next_run(tiny, home, readout):
    run(*readout)
    (part,) = (home / "embeddings").rglob("part-*.h5")
    good = part.read_bytes()
    spots = [
        good.index(b"cls\0"),
        good.index(b"mean\0") + 1,
        8,
        store.HEAD,
        len(good) - 2,
        *range(0, len(good), len(good) // 6),
    ]
    for at in spots:
        bad = bytearray(good)
        bad[at] ^= 4
        part.write_bytes(bad)
        done = run(*readout)
        assert done.code == 0 and done.json["repaired"] and part.read_bytes() == good, f"byte {at}: {done}"


def test_verify_names_damaged_parts(large, home):
    run()
    part = sorted((home / "embeddings").rglob("part-*.h5"))[2]
    part.write_bytes(part.read_bytes()[:-1])
    done = bench("store", "verify", "--json")
    assert done.code == 1 and done.json == {"parts": 3, "damaged": [str(part)], "unread": []}
    assert bench("store", "verify").code == 0
    assert run().json["embedded"] == 600 - 512
    assert str(part) + ".damaged" in bench("store", "gc", "--yes", "--json").json["files"]
    assert not list((home / "embeddings").rglob("*.damaged"))


def test_verify_goes_on_behind_a_part_that_it_may_not_read(large, home):
    run()
    first, _, last = sorted((home / "embeddings").rglob("part-*.h5"))
    first.unlink()
    first.symlink_to(first)  # no reader gets through, root neither
    last.write_bytes(b"")
    done = bench("store", "verify", "--json")
    assert done.code == 1 and done.json["damaged"] == [str(last)]
    assert str(first) in done.json["unread"][0] and done.json["unread"][0] in done.err and first.is_symlink()


# ---- tiles that cannot be read


def test_broken_tiles_fail_and_skip_broken_counts_them(tiny):
    (tiny / "t" / "0007.png").write_bytes(b"")
    (tiny / "t" / "0009.png").write_bytes(b"not an image")
    done = run()
    assert (
        done.code == 1
        and "t/0007.png" in done.json["failed"][0]["error"]
        and "--skip-broken" in done.json["failed"][0]["error"]
    )
    found = record(run("--skip-broken"))
    assert found["dataset"]["rows"] == 58 and found["dataset"]["left_out"] == 2
    again = run()
    assert again.code == 1 and "--skip-broken" in again.err, (
        "embedded with --skip-broken, it must not be scored silently without"
    )


def test_rows_without_a_label_are_left_out_and_counted(tiny):
    rows = read_table(tiny)
    rows[0]["label"] = rows[1]["label"] = ""
    write_table(tiny, rows)
    assert record(run())["dataset"]["left_out"] == 2


# ---- places


def test_results_that_cannot_be_written_keep_the_embeddings(tiny, tmp_path, tint):
    (tmp_path / "file").touch()
    done = run("--results", tmp_path / "file" / "results")
    assert (
        done.code == 1 and "--results" in done.err and "embeddings are kept" in done.err and "Traceback" not in done.err
    )
    forget(tint)
    assert run().json["embedded"] == 0 and traces(tint) == {}


def test_a_store_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "file").touch()
    done = run("--store", tmp_path / "file" / "store")
    assert done.code == 1 and "--store" in done.err and "Traceback" not in done.err


def test_a_full_disk_while_recording(tiny, monkeypatch):
    import errno

    real = os.replace

    def full(source, target):
        if str(target).endswith(".json") and "results" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    done = run()
    assert done.code == 1 and "No space left" in done.err and "--results" in done.err
    monkeypatch.undo()


def test_a_plugin_that_fails_at_import_is_named_when_its_thing_is_asked_for(tiny, tmp_path):
    write_plugin(tmp_path / "site", "eosin_rotten", "raise OSError('no libfoo')")
    done = bench("run", "-m", "rotten-model", "-b", "tint-mean")
    assert done.code == 2 and "eosin_rotten" in done.err and "no libfoo" in done.err
    assert run().code == 0, "the rest go on"
