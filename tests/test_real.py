"""Real tissue, where the shared folder is: our loaders, a user's ten-line registry, the numbers that others measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from eosin.cli import main

pytestmark = pytest.mark.real

TEN_LINES = """
datasets:
  kather: {{kind: manifest, root: {top}/kather2016_mini, table: labels.csv, mpp: 0.495}}
  lc: {{kind: manifest, root: {top}/lc25000_mini, table: labels.csv}}
  pcam-small: {{kind: manifest, root: {top}/pcam, table: labels.csv, mpp: 0.97}}
benchmarks:
  kather-knn: {{dataset: kather, protocol: g2l-knn@1, metric: accuracy, options: {{n_folds: 5}}}}
  kather-linear: {{dataset: kather, protocol: g2l-linear@1, metric: accuracy, options: {{n_C: 9, seeds: 5}}}}
  lc-linear: {{dataset: lc, protocol: g2l-linear@1, metric: accuracy, options: {{n_C: 9, seeds: 5}}}}
  pcam-linear: {{dataset: pcam-small, protocol: g2l-linear@1, metric: accuracy, options: {{split: given, n_C: 9}}}}
suites: {{mine: [kather-knn, kather-linear, lc-linear]}}
"""


def bench(*args: str) -> dict:
    done = CliRunner().invoke(main, [*args, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def scores(out: dict) -> dict[tuple[str, str], dict]:
    records = [json.loads(Path(p).read_text()) for p in out["records"]]
    return {(r["benchmark"]["name"], r["model"]["name"]): r["scores"] for r in records}


@pytest.fixture
def registry(shared, tmp_path):
    path = tmp_path / "registry.yaml"
    path.write_text(TEN_LINES.format(top=shared("realdata")))
    return str(path)


@pytest.mark.slow
def test_a_users_registry_on_two_small_sets(registry):
    """Measured with other code, 5 folds, logistic regression: .81 / .61 on Kather's tiles, .93 / .78 on LC25000's."""
    out = bench("run", "-m", "efficientnet-lite0", "-m", "color-stats", "--suite", "mine", "--registry", registry)
    found = scores(out)
    real, colour = (found["kather-linear", m]["accuracy"]["mean"] for m in ("efficientnet-lite0", "color-stats"))
    assert 0.72 < real < 0.92 and 0.5 < colour < 0.8 and real > colour
    real, colour = (found["lc-linear", m]["accuracy"]["mean"] for m in ("efficientnet-lite0", "color-stats"))
    assert 0.82 < real <= 1 and 0.55 < colour < 0.92 and real > colour
    assert found["kather-knn", "efficientnet-lite0"]["accuracy"]["mean"] > 0.6


@pytest.mark.slow
def test_pcam_from_train_to_test(registry):
    """Measured with other code: .78 for colour; its own train, val and test are used."""
    found = scores(bench("run", "-m", "color-stats", "-b", "pcam-linear", "--registry", registry))
    assert 0.7 < found["pcam-linear", "color-stats"]["accuracy"]["mean"] < 0.86


def test_idc_is_indexed_as_its_files_say(shared):
    out = bench("data", "index", "idc", str(shared("realdata", "idc")))
    assert out["items"] == 4017 and out["counts"] == {"IDC-negative": 3059, "IDC-positive": 958}
    assert any("4,017 patches of the official 277,524" in w["message"] for w in out["warnings"])


@pytest.mark.slow
def test_idc_with_random_and_with_grouped_folds(shared):
    """Neighbouring patches of a patient are near copies: random folds flatter, grouped folds do not."""
    data = str(shared("realdata"))
    paper = scores(bench("run", "-m", "color-stats", "-b", "idc-knn", "-b", "idc-linear", "--data", data))
    grouped = scores(
        bench("run", "-m", "color-stats", "-b", "idc-knn", "-b", "idc-linear", "--data", data, "--folds", "grouped")
    )
    for name, metric in (("idc-knn", "accuracy"), ("idc-linear", "auroc")):
        a, b = (s[name, "color-stats"][metric] for s in (paper, grouped))
        assert 0.5 < b["mean"] < a["mean"] + 0.02 and a["mean"] > 0.76
        assert a["low"] < a["mean"] < a["high"]
