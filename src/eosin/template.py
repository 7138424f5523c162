"""`bench new`: a distribution of a plugin, whole: code, pyproject, README, a test that passes."""

from __future__ import annotations

import re
from pathlib import Path

from .doors import modules
from .errors import UsageError
from .files import writing

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "eosin-{name}"
version = "0.1.0"
description = "{title}, for the eosin benchmark harness"
requires-python = ">=3.11"
dependencies = ["eosin"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points.eosin]
{module} = "{module}"

[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""

MODEL = '''\
"""{title}."""

import eosin


class {cls}(eosin.FeatureExtractor):
    """Mean colour of a 16 x 16 grid. Replace `build` by your network, and the card by its facts."""

    card = eosin.ModelCard("{name}", dim=768, mpp=0.5)  # size, mean, std, licence …: docs/write-a-model.md

    def build(self):
        import torch  # imported here, so that listing models stays light

        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(16), torch.nn.Flatten())


@eosin.hookimpl
def provide_models():
    return [{cls}()]
'''

MODEL_TEST = """\
import torch

from {module} import {cls}


def test_width_is_what_the_card_says():
    model = {cls}()
    size = model.card.size
    out = model.embed(torch.zeros(2, 3, size, size))
    assert out.shape == (2, model.card.dim)
    assert torch.isfinite(out).all()


def test_the_same_tile_gives_the_same_numbers():
    model = {cls}()
    tile = torch.rand(1, 3, model.card.size, model.card.size)
    assert torch.equal(model.embed(tile), model.embed(tile))
"""

BENCHMARK = '''\
"""{title}."""

import eosin
from eosin import metrics, probes


class {cls}(eosin.Benchmark):
    """Balanced accuracy on the test split, from the 20 nearest frozen embeddings of the train split."""

    card = eosin.BenchmarkCard("{name}", dataset="{name}", metric="balanced_accuracy", protocol="{name}@1")
    dataset = eosin.Manifest("{name}", mpp=0.5)  # <data>/{name}/tiles.csv: path,label,split,group

    def score(self, emb):
        train, test = emb["train"], emb["test"]
        probe = probes.knn(k=20).fit(train.X, train.y)
        return {{"balanced_accuracy": metrics.balanced_accuracy(test.y, probe.predict(test.X))}}


@eosin.hookimpl
def provide_benchmarks():
    return [{cls}()]
'''

BENCHMARK_TEST = '''\
import numpy as np

import eosin
from {module} import {cls}


def embeddings(distance):
    """Two classes of 60 points, this far apart, half of them for training."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 60)
    X = rng.normal(size=(120, 8)).astype("float32") + distance * y[:, None]
    return eosin.Embeddings(X=X, y=y, id=np.arange(120).astype(str), split=np.tile(["train", "test"], 60))


def test_separated_classes_score_one():
    assert {cls}().score(embeddings(10.0))["balanced_accuracy"] == 1.0


def test_noise_scores_like_a_guess():
    assert 0.3 < {cls}().score(embeddings(0.0))["balanced_accuracy"] < 0.7
'''

README = """\
# eosin-{name}

{title}, a plugin of the eosin benchmark harness.

    pip install -e '.[test]' && pytest
    bench show {name}

Publish it: set name, version and licence in pyproject.toml, then `python -m build` and `twine upload dist/*`.
Whoever installs it finds `{name}` in `bench list {what}s`.
"""


def write(what: str, name: str, folder: Path) -> Path:
    """Write the distribution of a new plugin into an empty folder.

    Args:
        what: `model` or `benchmark`. name: of the thing; the distribution is eosin-<name>, the module eosin_<name>.

    Raises:
        UsageError: a name that cannot be one, or a folder that holds files. StoreError: it cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*([-._][a-z0-9]+)*", name):
        raise UsageError(
            f"{name!r} cannot name a plugin: lower-case letters and digits, joined by '-', '.' or '_', starting with a letter."
        )
    module = "eosin_" + name.replace("-", "_").replace(".", "_")
    if module in (taken := modules()):
        raise UsageError(
            f"{name!r} would be the module {module}, which {taken[module]} has already, and one would hide the other. Choose another name."
        )
    with writing(folder, "--out"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists and is not empty. Name another folder with --out.")
    words = name.replace("-", " ").replace("_", " ").replace(".", " ").split()
    facts = {
        "name": name,
        "module": module,
        "cls": "".join(w.capitalize() for w in words) + what.capitalize() * (len(words) == 1),
        "title": f"The {what} {name}",
        "what": what,
    }
    code, test = (MODEL, MODEL_TEST) if what == "model" else (BENCHMARK, BENCHMARK_TEST)
    files = {"pyproject.toml": PYPROJECT, "README.md": README, f"{module}.py": code, f"tests/test_{module}.py": test}
    with writing(folder, "--out"):
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text.format(**facts), encoding="utf-8")
    return folder
