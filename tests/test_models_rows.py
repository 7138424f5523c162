"""Adding a model: one row and no code, or a dozen lines; with real trained weights on real tissue where they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

import eosin
from eosin.cli import main
from eosin.errors import MissingError, ModelError, UsageError
from eosin.plugins import Catalogue
from model_files import TINY, load, near, tiles


def bench(*args, code=0):
    done = CliRunner().invoke(main, [*map(str, args)])
    assert done.exit_code == code, done.stderr
    return done


@pytest.fixture
def mine(home, tmp_path):
    """A user's registry with one row for a model that timm builds, its weights beside it, and a handful of tiles."""
    home.mkdir(parents=True)
    network = timm.create_model("vit_base_patch16_224", num_classes=0, **TINY)
    save_file(network.state_dict(), home / "mine.safetensors")
    folder = tmp_path / "tissue"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (40, 36, 3), np.uint8)).save(folder / f"{i}.png")
    (folder / "tiles.csv").write_text("path,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(6)))
    row = {
        "kind": "timm",
        "arch": "vit_base_patch16_224",
        "arch_options": TINY,
        "weights": "mine.safetensors",
        "size": 32,
    }
    row |= {"mean": [0.7, 0.58, 0.7], "std": [0.21, 0.23, 0.18], "interpolation": "bilinear"}
    rows = {
        "models": {"mine": row, "halved": {**row, "precision": "bf16"}},
        "datasets": {"tissue": {"kind": "manifest", "root": str(folder)}},
    }
    (home / "registry.yaml").write_text(json.dumps(rows))
    return network.eval(), folder


def test_a_model_that_timm_can_build_is_one_row(mine):
    """Row to embeddings, against timm's own network and a transform written out here."""
    network, folder = mine
    out = json.loads(bench("embed", "-m", "mine", "-d", "tissue", "--json").stdout)
    assert out["embedded"] == 6
    from eosin.places import Places
    from eosin.store import Address, read

    address = Address(Path(out["jobs"][0]["address"]), 6, {})
    _, _, found = read(address, ["cls", "mean"])
    assert str(Places.of().store) in str(address.folder)
    x = []
    for i in range(6):
        image = Image.open(folder / f"{i}.png").resize((32, 35), Image.Resampling.BILINEAR).crop((0, 2, 32, 34))
        x.append((np.asarray(image) / 255.0 - [0.7, 0.58, 0.7]) / [0.21, 0.23, 0.18])
    with torch.no_grad():
        tokens = network.forward_features(torch.tensor(np.stack(x), dtype=torch.float32).permute(0, 3, 1, 2))
    near(torch.from_numpy(found["cls"]), tokens[:, 0])
    near(torch.from_numpy(found["mean"]), tokens[:, 1:].mean(1))


def test_precision_is_in_the_address_and_speed_is_not(mine):
    addresses = {}
    for flags in ((), ("--precision", "bf16"), ("--batch-size", "2"), ("--channels-last",)):
        out = json.loads(bench("embed", "-m", "mine", "-d", "tissue", "--json", *flags).stdout)["jobs"][0]
        addresses[flags] = out["address"]
    assert len(set(addresses.values())) == 2
    half = json.loads(bench("embed", "-m", "halved", "-d", "tissue", "--json").stdout)["jobs"][0]
    assert half["embedded"] == 6


def test_the_same_weights_in_another_folder_are_the_same_model(tmp_path):
    state = timm.create_model("vit_base_patch16_224", num_classes=0, **TINY).state_dict()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_file(state, tmp_path / name / "model.safetensors")
    first, second = (load(tmp_path / n, arch_options=TINY).fingerprint() for n in ("a", "b"))
    assert first == second
    save_file({**state, "pos_embed": state["pos_embed"] + 1}, tmp_path / "b" / "model.safetensors")
    assert load(tmp_path / "b", arch_options=TINY).fingerprint() != first


def test_show_fit_and_doctor_say_what_a_model_needs(mine):
    shown = json.loads(bench("show", "mine", "--fit", "1GB", "--json").stdout)
    assert shown["fit"]["fits"] and shown["weights"] == "here" and shown["params"] > 0 and shown["gflops"] > 0
    assert "--fit 24GB" in bench("show", "mine", "--fit", "much", code=2).stderr


def test_the_batch_is_what_fits_beside_the_weights(monkeypatch):
    """On a GPU by its free memory, on a processor 16; a model that cannot be measured gets the most."""
    from types import SimpleNamespace

    from eosin import embed, measure

    def batch(free, model, geometry="card"):
        monkeypatch.setattr(measure, "free_mb", lambda device: free)
        return embed.Worker._fitting_batch(
            SimpleNamespace(device="any", job=SimpleNamespace(extractor=model, geometry=geometry))
        )

    tiny = load("", arch_options={**TINY, "dynamic_img_size": True}, size=32)
    assert batch(None, tiny) == 16 and batch(1e6, tiny) == 128 and batch(1e-3, tiny) == 1
    assert batch(10.0, tiny, "224") < batch(10.0, tiny)
    assert batch(1e-3, Gleason()) == 128


@pytest.mark.slow
def test_doctor_says_of_every_model_whether_it_loads(mine):
    rows = {r["what"]: r for r in json.loads(bench("doctor", "--models", "--json").stdout)["checks"]}
    assert rows["model mine"]["state"] == "PASS" and rows["model random-vit-s"]["state"] == "PASS"
    assert "https://huggingface.co/MahmoodLab/UNI" in rows["model uni"]["fix"]
    assert "bench distill g2l" in rows["model g2l-brca"]["fix"]
    assert not [r for r in rows.values() if r["state"] == "FAIL"]
    assert set(rows) == {
        f"model {m.card.name}" for m in Catalogue([Path(eosin.places.home()) / "registry.yaml"]).models.things.values()
    }


@pytest.mark.parametrize("name", ["g2l-brca", "g2l-prad"])
def test_g2l_says_that_no_weights_are_public_and_takes_yours(name, mine, home):
    """Looked for in EOSIN_HOME/models/<name>, where `bench distill --out` can put them; or --weights."""
    model = Catalogue().model(name)
    assert model.available() == "missing"
    with pytest.raises(MissingError) as caught:
        model.weight_file()
    for word in (
        "No public weights exist",
        "bench distill g2l --teacher h-optimus-0 --student hibou-l",
        str(home / "models" / name),
        "--weights FILE",
    ):
        assert word in str(caught.value)
    assert "No public weights exist" in bench("embed", "-m", name, "-d", "tissue", code=3).stderr
    (home / "models" / name).mkdir(parents=True)
    file = home / "models" / name / "model.safetensors"
    save_file({"a": torch.zeros(1)}, file)
    assert model.available() == "here" and model.weight_file() == file
    first = model.fingerprint()
    save_file({"a": torch.ones(1)}, file)
    assert model.fingerprint() != first, "weights count by their content"
    other = Catalogue().model(name, weights=str(file))
    with pytest.raises(ModelError, match="343 missing in the file"):
        other.build()


def test_two_files_known_as_ctranspath_are_told_apart(home):
    folder = home / "models" / "ctranspath"
    folder.mkdir(parents=True)
    torch.save({"model": {"a": torch.zeros(1)}}, folder / "ctranspath.pth")
    with pytest.raises(ModelError, match="another file than the published one"):
        Catalogue().model("ctranspath").build()
    with pytest.raises(ModelError, match="does not fit"):
        Catalogue().model("ctranspath", weights=str(folder / "ctranspath.pth")).build()


def test_an_unknown_key_map_architecture_and_option(tmp_path):
    save_file(
        timm.create_model("vit_base_patch16_224", num_classes=0, **TINY).state_dict(), tmp_path / "model.safetensors"
    )
    with pytest.raises(UsageError, match="no key map 'hf_dino'. Key maps: conch_v1"):
        load(tmp_path, arch_options=TINY, key_map="hf_dino").build()
    with pytest.raises(ModelError, match="timm cannot build 'vit_bas'"):
        load(tmp_path, arch="vit_bas").build()
    with pytest.raises(ModelError, match="timm cannot build"):
        load(tmp_path, arch_options={"depht": 2}).build()


def test_a_seed_makes_the_same_network_every_time_and_leaves_the_world_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    a, b, c = (load("", arch_options=TINY, seed=s).embed(tiles())["cls"] for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state())


class Gleason(eosin.FeatureExtractor):
    """Arvaniti's MobileNet: a network that no timm row can express, in a dozen lines."""

    card = eosin.ModelCard(
        "gleason-mobilenet", dim=512, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear"
    )
    file = Path()

    def build(self):
        from safetensors.torch import load_file
        from timm.models.efficientnet import _gen_mobilenet_v1

        network = _gen_mobilenet_v1(
            "mobilenetv1_100", channel_multiplier=0.5, pad_type="same", bn_eps=1e-3, num_classes=4
        )
        network.load_state_dict(load_file(self.file))
        network.reset_classifier(0)
        return network


def five_fold(X, y, n=5):
    """Accuracy of 5 cosine neighbours and of logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(n, shuffle=True, random_state=0)
    probes = KNeighborsClassifier(5, metric="cosine"), LogisticRegression(max_iter=2000)
    return [cross_val_score(make_pipeline(StandardScaler(), p), X, y, cv=folds).mean() for p in probes]


def seen_by(model, folder, n):
    """Readouts of the first n labelled tiles, by the model's own transform."""
    import csv

    rows = list(csv.DictReader((folder / "labels.csv").open()))[:n]
    x = np.stack([model.transform(Image.open(folder / r["path"]).convert("RGB")) for r in rows])
    with torch.no_grad():
        parts = [model.embed(torch.from_numpy(x[i : i + 12])) for i in range(0, len(x), 12)]
    parts = [p if isinstance(p, dict) else {"pooled": p} for p in parts]
    return {k: torch.cat([p[k] for p in parts]).numpy() for k in parts[0] if k != "grid"}, [r["label"] for r in rows]


@pytest.mark.real
def test_a_trained_vit_runs_through_a_users_card(shared, home):
    """Measured with other code on these tiles: class token .74 and .79, patch mean .79 and .82 (5-NN, logistic regression)."""
    weights = shared("realdata", "weights", "vit_small_patch14_depth8", "vit_small_patch14_depth8_fp16.safetensors")
    home.mkdir(parents=True)
    options = {"img_size": 518, "depth": 8, "dynamic_img_size": True}
    row = {
        "kind": "timm",
        "arch": "vit_small_patch14_dinov2",
        "arch_options": options,
        "weights": str(weights),
        "dim": 384,
        "prefix_tokens": 1,
        "mpp": 0.5,
    }
    (home / "registry.yaml").write_text(json.dumps({"models": {"eight-blocks": row}}))
    model = Catalogue([home / "registry.yaml"]).model("eight-blocks")
    found, y = seen_by(model, shared("realdata", "kather2016_mini"), 108)
    assert found["cls"].shape == (108, 384)
    knn, logistic = five_fold(found["cls"], y)
    assert 0.64 < knn < 0.84 and 0.69 < logistic < 0.89
    knn, logistic = five_fold(found["mean"], y)
    assert 0.69 < knn < 0.89 and 0.72 < logistic < 0.92


@pytest.mark.real
def test_a_trained_mobilenet_is_a_dozen_lines(shared):
    """Measured with other code on these tiles: .78 and .83."""
    model = Gleason()
    model.file = shared("realdata", "weights", "mobilenet050_gleason", "mobilenet050_gleason_timm.safetensors")
    found, y = seen_by(model, shared("realdata", "kather2016_mini"), 108)
    assert found["pooled"].shape == (108, 512)
    knn, logistic = five_fold(found["pooled"], y)
    assert 0.68 < knn < 0.88 and 0.73 < logistic < 0.93


def test_a_tag_of_timm_names_weights_and_no_tag_is_random():
    catalogue = Catalogue()
    bare, tagged = (catalogue.model(f"timm:{n}").card for n in ("resnet10t", "resnet10t.c3_in1k"))
    assert (bare.hub, bare.seen, bare.title) == ("", ("nothing",), "resnet10t, random weights")
    assert (tagged.hub, tagged.seen) == ("timm/resnet10t.c3_in1k", ("unknown",))
    with pytest.raises(UsageError, match=r"no weights 'nope' of resnet10t .*timm:resnet10t has random weights"):
        catalogue.model("timm:resnet10t.nope")
