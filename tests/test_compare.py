"""bench compare: the same question or none, the best test that records allow, leakage, CKA and curves from the store."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from eosin import compare, leakage, metrics, paired, record
from eosin.cards import DatasetCard, ModelCard
from helpers import TINT, bench, install, make_tiles

PATIENTS, ROWS = 30, 8


def made(results, name, benchmark="phantom-knn", skill=0.7, metric="accuracy", keep=True, seed=0, group=True, **more):
    """A record on disk: 240 tiles of 30 patients in five folds; `more` overrides parts of it."""
    rng = np.random.default_rng(seed)
    n = PATIENTS * ROWS
    y, patient, fold = np.arange(n) % 2, np.repeat(np.arange(PATIENTS), ROWS), np.arange(n) % 5
    ease = rng.normal(0, 0.15, PATIENTS)[patient]
    right = rng.random(n) < np.clip(skill + ease, 0, 1)
    label = np.where(right, y, 1 - y)
    values = [metrics.accuracy(y[fold == f], label[fold == f]) for f in range(5)]
    summary = record.summary(more.pop("values", values), 1)
    content = {
        "model": {"name": name, "fingerprint": f"{name}-1", "seen": ["nothing"], **more.pop("model", {})},
        "benchmark": {"name": benchmark, "fingerprint": f"{benchmark}-1", "metric": metric, **more.pop("benchmark_card", {})},
        "protocol": {"name": "g2l-knn@1", "options": {"folds": "grouped", "n_folds": 5, **more.pop("options", {})}, "ddof": 1},
        "dataset": {"name": "phantom", "fingerprint": "d1", "rows": n},
        "scores": {metric: summary},
        "intervals": {metric: "bootstrap of patients"},
        "predictions": "kept" if keep else None,
        **more,
    }  # fmt: skip
    ids = np.array([f"t{i}" for i in range(n)])
    kept = {"id": ids, "fold": fold, "seed": np.zeros(n, int), "y": y, "score": label}
    kept |= {"group": np.array([f"p{p}" for p in patient])} if group else {}
    path = (
        results
        / f"{name}@{content['model']['fingerprint']}"
        / f"{benchmark}@{content['benchmark']['fingerprint']}.json"
    )
    record.write(path, content, kept if keep else None)
    return {**content, "path": path}


@pytest.fixture
def results(home):
    return home / "results"


def test_what_is_missing_is_asked_for_as_it_was_named(results, tmp_path):
    made(results, "good", skill=0.9)
    card = tmp_path / "my card.yaml"
    card.write_text("name: fresh\nkind: timm\narch: test_vit\n")
    done = bench("compare", "good", card, "-b", "phantom-knn")
    assert done.code == 3 and f"bench run --model '{card}' --benchmark phantom-knn" in done.err


def test_cka_takes_the_names_of_records(home):
    done = bench("compare", "color-stats@000", "random-vit-s", "--cka", "--dataset", "phantom")
    assert done.code == 2 and "has the fingerprint" in done.err


def test_two_models_by_their_patients(results):
    a, b = (made(results, m, skill=s, seed=i) for i, (m, s) in enumerate((("good", 0.9), ("poor", 0.6))))
    out = bench("compare", "good", "poor", "-b", "phantom-knn", "--json", "--resamples", 300)
    (pair,) = out.json["pairs"]
    means = [r["scores"]["accuracy"]["mean"] for r in (a, b)]
    assert (pair["score_a"], pair["score_b"]) == tuple(means) and pair["difference"] == pytest.approx(
        means[0] - means[1]
    )
    assert pair["low"] > 0 and pair["p"] < 0.01 and pair["p_holm"] == pair["p"] and pair["units"] == PATIENTS
    assert pair["verdict"] == "good is better" and pair["test"].startswith("bootstrap and permutation of 30 patients")
    assert {s["model"]: s["mark"] for s in out.json["scores"]} == {"good": "best", "poor": "worse"}
    assert out.code == 0 and out.json["ranks"] == {}


def test_formats_hold_the_same_numbers(results, tmp_path):
    for i, m in enumerate(("good", "poor")):
        made(results, m, skill=0.9 - 0.3 * i, seed=i)
    asked = ("compare", "good", "poor", "-b", "phantom-knn", "--resamples", 200)
    facts = bench(*asked, "--json").json["pairs"][0]
    (row,) = csv.DictReader(io.StringIO(bench(*asked, "--format", "csv").out))
    assert float(row["difference"]) == facts["difference"] and float(row["p"]) == facts["p"]
    assert bench(*asked, "--format", "markdown").out.splitlines()[0].startswith("| benchmark | metric |")
    table = bench(*asked).out
    assert "good is better" in table and f"{facts['difference']:+.3f}" in table
    bench(*asked, "--out", tmp_path / "out", "--quiet")
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == [facts]


def test_equal_models_are_not_told_apart_and_holm_counts_the_whole_table(results):
    for b in ("phantom-knn", "phantom-ridge"):
        for i, m in enumerate(("one", "two", "three")):
            made(results, m, b, skill=0.7, seed=i)
    out = bench("compare", "one", "two", "three", "-b", "phantom-knn", "-b", "phantom-ridge", "--json", "--resamples", 200)  # fmt: skip
    found = out.json
    assert len(found["pairs"]) == 6
    assert [p["p_holm"] for p in found["pairs"]] == pytest.approx(
        paired.holm([p["p"] for p in found["pairs"]]).tolist()
    )
    assert {s["mark"] for s in found["scores"]} <= {"best", "alike"}
    assert found["counted"] == 2 and found["critical"] == pytest.approx(2.343 * np.sqrt(12 / 12), abs=1e-3)
    assert sum(found["ranks"].values()) == pytest.approx(6)
    text = bench("compare", "one", "two", "three", "-b", "phantom-knn", "-b", "phantom-ridge", "--resamples", 200).out
    assert "≈" in text and "mean rank (2)" in text and "Nemenyi" in text


def test_missing_records_name_the_command(results):
    made(results, "good")
    out = bench("compare", "good", "absent", "-b", "phantom-knn")
    assert out.code == 3 and "bench run --model absent --benchmark phantom-knn" in out.err
    made(results, "poor", seed=1)
    out = bench("compare", "good", "poor", "-b", "phantom-knn", "-b", "idc-knn", "--json", "--resamples", 100)
    assert out.code == 3 and len(out.json["pairs"]) == 1 and len(out.json["missing"]) == 2
    assert bench("compare", "good", "good", "-b", "phantom-knn").code == 2
    assert bench("compare", "good", "poor").code == 2 and bench("compare").code == 2
    assert "Did you mean" in bench("compare", "good", "poor", "-b", "phantom-kn").err


@pytest.mark.parametrize(
    "change, said",
    [
        ({"options": {"folds": "paper"}}, "option folds grouped and paper"),
        ({"dataset": {"name": "phantom", "fingerprint": "d2", "rows": 240}}, "dataset's fingerprint d1 and d2"),
        ({"protocol": {"name": "g2l-knn@2", "options": {}}}, "protocol g2l-knn@1 and g2l-knn@2"),
    ],
)
def test_different_questions_are_never_compared(results, change, said):
    made(results, "good")
    made(results, "poor", seed=1, benchmark_card={"fingerprint": "q2"}, **change)
    out = bench("compare", "good", "poor", "-b", "phantom-knn")
    assert out.code == 1 and "answer different questions" in out.err and said in out.err and not out.out


def test_each_question_has_its_row_and_options_choose(results):
    for i, m in enumerate(("good", "poor")):
        made(results, m, seed=i)
        made(results, m, seed=i, options={"folds": "paper"}, benchmark_card={"fingerprint": "q2"})
    asked = ("compare", "good", "poor", "-b", "phantom-knn", "--json", "--resamples", 100)
    assert {p["benchmark"] for p in bench(*asked).json["pairs"]} == {"phantom-knn (folds grouped)", "phantom-knn (folds paper)"}  # fmt: skip
    assert len(bench(*asked, "--option", "folds=paper").json["pairs"]) == 1


def test_folders_merge_and_conflicts_are_said(results, tmp_path):
    made(results, "good")
    made(tmp_path / "other", "poor", seed=1)
    asked = ("compare", "good", "poor", "-b", "phantom-knn", "--json", "--resamples", 100)
    both = (*asked, "--results", results, "--results", tmp_path / "other")
    assert len(bench(*both).json["pairs"]) == 1 and bench(*asked).code == 3
    made(tmp_path / "other", "good", seed=9)
    out = bench(*both)
    assert out.code == 1 and "one address and different scores" in out.err and not out.out


def test_a_name_of_two_models(results):
    made(results, "good")
    made(results, "good", seed=2, model={"fingerprint": "later"})
    made(results, "poor", seed=1)
    out = bench("compare", "good", "poor", "-b", "phantom-knn")
    assert out.code == 2 and "good@good-1 or good@later" in out.err
    assert bench("compare", "good@later", "poor", "-b", "phantom-knn", "--json", "--resamples", 100).code == 0


def test_without_patients_or_predictions_folds_decide(results):
    kept = [made(results, m, seed=i, group=False) for i, m in enumerate(("good", "poor"))]
    (pair,) = compare.compare(kept, ["good", "poor"], ["phantom-knn"], resamples=100).pairs
    assert "patients of phantom are not known" in pair["test"] and pair["test"].startswith(
        "corrected resampled t over 5"
    )
    values = [r["scores"]["accuracy"]["values"] for r in kept]
    assert pair["p"] == pytest.approx(paired.of_values(*values, 1 / 4).p)
    bare = [made(results, m, seed=i, keep=False) for i, m in enumerate(("good", "poor"))]
    assert compare.compare(bare, ["good", "poor"], ["phantom-knn"]).pairs[0]["test"].endswith("test:train 0.25")
    runs = [made(results, m, seed=i, keep=False, options={"runs": 5}) for i, m in enumerate(("good", "poor"))]
    (pair,) = compare.compare(runs, ["good", "poor"], ["phantom-knn"]).pairs
    assert "luck of training alone" in pair["test"] and pair["p"] == pytest.approx(paired.of_values(*values, 0).p)
    single = [made(results, m, values=[0.5 + i / 10], keep=False) for i, m in enumerate(("good", "poor"))]
    (pair,) = compare.compare(single, ["good", "poor"], ["phantom-knn"]).pairs
    assert pair["p"] is None and pair["verdict"] == "not testable" and pair["difference"] == pytest.approx(-0.1)


def test_tiles_are_units_where_a_dataset_has_no_patients(results):
    kept = [made(results, m, seed=i, group=False, intervals={"accuracy": "bootstrap of tiles"}) for i, m in enumerate("ab")]  # fmt: skip
    (pair,) = compare.compare(kept, ["a", "b"], ["phantom-knn"], resamples=100).pairs
    assert "240 tiles" in pair["test"]


def test_predictions_that_are_not_the_score_are_not_used(results):
    kept = [made(results, m, seed=i, values=[0.9 - i / 9, 0.8, 0.7, 0.9, 0.6]) for i, m in enumerate("ab")]
    (pair,) = compare.compare(kept, ["a", "b"], ["phantom-knn"], resamples=100).pairs
    assert pair["test"].startswith("corrected resampled t") and "predictions give" in pair["test"]


def test_lower_may_be_better(results):
    kept = [
        made(results, m, seed=i, skill=0.9 - i * 0.4, benchmark_card={"better": "lower"}) for i, m in enumerate("ab")
    ]
    found = compare.compare(kept, ["a", "b"], ["phantom-knn"], resamples=200)
    assert found.pairs[0]["verdict"] == "b is better"
    assert {s["model"]: s["mark"] for s in found.scores} == {"a": "worse", "b": "best"}


def test_pairs_of_slides(results):
    rng, kept = np.random.default_rng(0), []
    names = [(f"s{i}", f"s{j}") for i in range(12) for j in range(i)]
    group = ["both" if (int(a[1:]) + int(b[1:])) % 2 else "inter_scanner" for a, b in names]
    for m, shift in (("a", 0.2), ("b", 0.0)):
        values = rng.normal(0.5 + shift, 0.02, (len(names), 2))
        score = float(np.mean([np.median(values[:, 0]), np.median(values[np.array(group) == "both", 1])]))
        pairs = {"a": [p[0] for p in names], "b": [p[1] for p in names], "group": group}
        pairs |= {"cosine": values[:, 0].tolist(), "top10": values[:, 1].tolist()}
        details = {"pairs": pairs, "groups": {"score": {"of": ["cosine", "top10_both"]}}}
        kept.append(made(results, m, metric="score", keep=False, values=[score], details=details))
    (pair,) = compare.compare(kept, ["a", "b"], ["phantom-knn"]).pairs
    assert pair["test"] == "jackknife over 12 slides" and pair["p"] < 0.001 and pair["verdict"] == "a is better"


# --- leakage


def test_marks_say_seen_part_unknown_or_nothing():
    tils = DatasetCard("tils", sources=("tcga-brca",))

    def model(*seen, **more):
        return ModelCard("m", seen=seen, **more)

    for seen, state in (
        (("tcga",), "seen"), (("tcga-brca", "unknown"), "seen"), (("tcga-prad",), "none"), (("unknown",), "unknown"),
        (("imagenet-1k",), "none"), (("nothing",), "none"), (("tils",), "seen"), (("tcga-prad", "unknown"), "unknown"),
    ):  # fmt: skip
        assert leakage.overlap(model(*seen), tils) == state, seen
    assert leakage.overlap(model("tcga-brca"), DatasetCard("mixed", sources=("tcga",))) == "part"
    assert leakage.overlap(model("tcga"), DatasetCard("mixed", sources=("tcga-brca", "rumc"))) == "part"
    assert leakage.overlap(model("tcga"), DatasetCard("bare")) == "unknown"
    assert "its score may be too high" in leakage.mark(model("tcga"), tils)[0]
    assert "is unknown: it may have seen tils" in leakage.mark(model("unknown"), tils)[0]
    assert "does not say" in leakage.mark(model("tcga"), DatasetCard("bare"))[0]
    assert leakage.mark(model("nothing"), tils) == []
    as_dicts = leakage.mark({"name": "m", "seen": ["tcga"]}, {"name": "tils", "sources": ["tcga-brca"]})
    assert as_dicts == leakage.mark(model("tcga"), tils)
    student = model("nothing", distilled={"seen": ["tcga"], "data": {"slides": 9, "excluded_slides": 2}})
    assert leakage.overlap(student, tils) == "seen" and "9 slides, 2 left out" in leakage.mark(student, tils)[1]


def test_the_registry_says_which_benchmarks_are_tcga():
    from eosin.plugins import Catalogue

    catalogue = Catalogue()
    card = {n: catalogue.datasets.things[n].card for n in ("tils", "tp53", "idc", "monusac")}
    phikon, lite = (catalogue.models.things[n].card for n in ("phikon", "efficientnet-lite0"))
    assert [leakage.overlap(phikon, card[n]) for n in card] == ["seen", "seen", "none", "seen"]
    assert [leakage.overlap(lite, card[n]) for n in card] == ["none"] * 4


def test_a_students_slides_against_the_patients(tmp_path):
    (tmp_path / "tiles.csv").write_text(
        'id,slide,use\n"a","x/TCGA-A1-A0SB-01Z-00-DX1.9F.svs",train\n"b","s2.tif",train\n'
    )
    card = ModelCard("g2l-x", weights=str(tmp_path / "model.safetensors"), distilled={"data": {"slides": 2}})
    table = {"group": np.array(["TCGA-A1-A0SB", "p9"]), "slide": np.array(["q", "s2"]), "id": np.array(["1", "2"])}
    assert leakage.taught_and_tested(leakage.distilled_on(card), table) == ["TCGA-A1-A0SB", "p9"]
    (said,) = leakage.of_student(card, table, "tp53")
    assert said.startswith("LEAK: g2l-x was distilled on slides of 2 of tp53's patients (TCGA-A1-A0SB, p9)")
    (said,) = leakage.of_student(card, {"group": np.array(["p9"])}, "tp53")
    assert said == "None of tp53's patients is among those that g2l-x was distilled on."
    (tmp_path / "tiles.csv").write_text("id,slide,group,use\nq1,,p9,train\nq2,,p9,train\nq3,,,train\n")
    assert leakage.distilled_on(card) == ["p9", "q3"]
    table = {"group": np.array(["p9", "p9", ""]), "slide": np.array(["", "", ""]), "id": np.array(["q1", "q2", "q3"])}
    assert leakage.taught_and_tested(["p9", "q3"], table) == ["p9"], "patients, not their tiles"
    assert leakage.of_student(ModelCard("plain"), table, "tp53") == []


def test_the_gap_between_folds(results):
    out = bench("compare", "good", "--folds-gap", "-b", "phantom-knn")
    assert out.code == 3 and "--benchmark phantom-knn --folds paper" in out.err and "--folds grouped" in out.err
    made(results, "good", skill=0.9, options={"folds": "paper"}, benchmark_card={"fingerprint": "q2"})
    made(results, "good", skill=0.6, seed=1)
    (row,) = bench("compare", "good", "--folds-gap", "-b", "phantom-knn", "--json").json["gaps"]
    assert row["gap"] == pytest.approx(row["paper"] - row["grouped"]) and 0 < row["low"] < row["gap"] < row["high"]
    assert "gap" in bench("compare", "good", "--folds-gap", "-b", "phantom-knn").out


# --- from the store

ROWS_OF_TINY = """
datasets:
  tiny: {kind: manifest, mpp: 0.5, sources: [tcga-brca]}
benchmarks:
  tiny-knn: {dataset: tiny, protocol: g2l-knn@1, metric: accuracy, options: {k: 3, n_folds: 3, n_components: 2, pca: none}}
"""


@pytest.fixture
def tiny(home, tmp_path, monkeypatch):
    """Two models on 60 tiles: `tint`, and the same with less to say."""
    install(monkeypatch, tmp_path / "site", "tint_plugin", TINT)
    poorer = TINT[TINT.index("class Tint") : TINT.index("class Centroid")]
    poorer = (
        poorer.replace("class Tint(", "class Half(").replace('"tint"', '"half"').replace("dim=6", "dim=6, version=2")
    )
    source = "import numpy as np\nimport eosin\n\n\ndef trace(*a):\n    pass\n\n\nimport os\nimport time\n" + poorer
    source += "\n@eosin.hookimpl\ndef provide_models():\n    return [Half()]\n"
    source = source.replace(
        "/ 255\n", "/ 255\n        both = both * [1, 0.1, 0.1, 0.1, 0.1, 0.1] + both[:, ::-1] * 0.3\n"
    )
    install(monkeypatch, tmp_path / "site", "half_plugin", source)
    make_tiles(home / "data" / "tiny")
    (home / "registry.yaml").write_text(ROWS_OF_TINY)
    return home


def test_cka_comes_from_the_store_alone(tiny, monkeypatch):
    out = bench("compare", "tint", "half", "--cka", "-d", "tiny")
    assert out.code == 3 and "bench embed --model tint --dataset tiny" in out.err and "--model half" in out.err
    assert "no dataset that both" in bench("compare", "tint", "half", "--cka").err
    assert bench("embed", "--model", "tint", "--model", "half", "--dataset", "tiny").code == 0
    from eosin.extractor import FeatureExtractor

    def never(self, *a):
        raise AssertionError("a forward pass")

    monkeypatch.setattr(FeatureExtractor, "module", property(never))
    (row,) = bench("compare", "tint", "half", "--cka", "--json").json["cka"]
    from eosin import store
    from helpers import job

    X, Y = (store.read(job(tiny, m).address, ["cls"])[2]["cls"] for m in ("tint", "half"))
    assert row["cka"] == pytest.approx(metrics.cka(X, Y)) and row["rows"] == 60 and row["dimensions"] == [6, 6]
    assert row["cka_debiased"] == pytest.approx(metrics.cka(X, Y, debiased=True))
    assert bench("compare", "tint", "half", "--cka", "-b", "tiny-knn", "--json").json["cka"] == [row]
    assert bench("compare", "tint", "--cka", "-d", "tiny").code == 2


def test_the_specification_curve(tiny, tmp_path):
    asked = ("compare", "--spec-curve", "tiny-knn", "-m", "tint", "-m", "half", "--vary", "k=3,5")
    out = bench(*asked)
    assert out.code == 3 and "never embeds" in out.err and "bench embed --model half --dataset tiny" in out.err
    bench("embed", "--model", "tint", "--model", "half", "--dataset", "tiny")
    out = bench(*asked, "--out", tmp_path / "curve", "--json", "--option", "n_components=2")
    found = out.json
    assert found["choices"]["k"] == [3, 5] and found["choices"]["pca"] == ["none", "train", "all"]
    assert found["choices"]["readout"] == ["default", "mean|default", "cls+mean|default"]
    assert any("folds=site" in k for k in found["dropped"])  # these tiles have no centre
    assert found["admissible"] == 2 * 2 * 3 * 2 * 3 == len(found["specifications"]) / 2
    own = bench("run", "--model", "tint", "--benchmark", "tiny-knn", "--json").json["records"]
    tint = next(r for r in found["models"] if r["model"] == "tint")
    from pathlib import Path

    assert tint["own"] == pytest.approx(record.read(Path(own[0]))["scores"]["accuracy"]["mean"])
    assert tint["min"] <= tint["median"] <= tint["max"] and found["ranking"]["compared"] == found["admissible"]
    svg = (tmp_path / "curve" / "spec-curve-tiny-knn.svg").read_text()
    assert svg.startswith("<svg") and "readout mean|default" in svg and svg.count("<circle") >= found["admissible"]
    rows = list(csv.DictReader((tmp_path / "curve" / "spec-curve-tiny-knn.csv").open()))
    assert len(rows) == 2 * found["admissible"] and {r["k"] for r in rows} == {"3", "5"}
    few = bench(*asked, "--cap", 20)
    assert few.code == 0 and "20 of" in few.err and "Above the cap of 20" in few.err
    assert bench(*asked, "--vary", "neighbours=3").code == 2
    assert bench("compare", "--spec-curve", "cka-idc", "-m", "tint").code == 2


def test_published_numbers_and_rankings_of_a_curve():
    from eosin import spread
    from eosin.curve import Curve, specifications

    own = {"k": 1, "d": "a"}
    specs = specifications(own, {"k": [1, 2], "d": ["a", "b"]}, 10)
    assert specs[0] == own and len(specs) == 4
    few = specifications(own, {"k": [*range(1, 30)], "d": ["a", "b"]}, 35)
    assert few[0] == own and len(few) == 35 == len({str(s) for s in few})
    values = np.array([[0.8, 0.7], [0.85, 0.7], [0.6, 0.7], [0.9, np.nan]])
    curve = Curve("b", "accuracy", "higher", ["x", "y"], specs, values, {"k": [1, 2], "d": ["a", "b"]}, {}, 4)
    rows = [
        {"benchmark": "b", "metric": "accuracy", "model": "x", "mean": 0.86, "spread": 0.02, "spread_kind": "std", "paper": "p"},
        {"benchmark": "b", "metric": "accuracy", "model": "y", "mean": 0.9, "spread": None, "spread_kind": ""},
        {"benchmark": "c", "metric": "accuracy", "model": "x", "mean": 0.1, "spread": None, "spread_kind": ""},
    ]  # fmt: skip
    spread.add_published(curve, rows)
    x, y = spread.summary(curve)
    assert (x["reproduce"], x["nearest"], x["rank_own"], x["rank_worst"], x["first"]) == (
        1,
        "d=b",
        1,
        2,
        pytest.approx(2 / 3),
    )
    assert (y["reproduce"], y["specifications"]) == (0, 3)
    held = spread.survival(curve)
    assert (held["compared"], held["same_ranking"], held["same_first"]) == (3, 2, 2)
    assert [r["reproduces"] for r in spread.long_rows(curve) if r["model"] == "x"] == [False, True, False, False]
