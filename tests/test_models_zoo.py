"""Every model of the registry is built, without weights and without memory, and counted."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from eosin.cards import ModelCard
from eosin.extractor import FeatureExtractor
from eosin.measure import fit, free_mb, largest_batch, measure
from eosin.plugins import Catalogue

MODELS = {n: m for n, m in Catalogue().models.things.items() if hasattr(m, "skeleton")}
OURS = sorted(n for n, m in MODELS.items() if n == m.card.name)
LONG_AGO = 17  # buffers of CTransPath that timm computes today, and that the facts still count


@pytest.fixture(scope="module")
def measured():
    """Measured once a model, kept for the tests of this file."""
    kept = {}

    def of(name):
        if name not in kept:
            kept[name] = measure(MODELS[name])
        return kept[name]

    return of


@pytest.mark.parametrize("name", OURS)
def test_a_card_says_what_its_network_is(name, measured):
    card, found = MODELS[name].card, measured(name)
    assert "problem" not in found, found
    assert found["params"] == card.params
    assert found["dim"] == card.dim
    assert found["gflops"] == pytest.approx(card.gflops, rel=0.01)
    assert found["prefix_tokens"] == card.prefix_tokens
    assert sorted(found["readouts"]) == sorted(card.readouts)
    assert card.tensors in (None, found["tensors"])
    assert card.licence and card.seen and card.title


@pytest.mark.parametrize("name", OURS)
def test_a_card_agrees_with_the_facts(name, shared, measured):
    facts = yaml.safe_load(shared("facts", "models.yaml").read_text())["models"]
    fact = next((f for n, f in facts.items() if MODELS.get(n) is MODELS[name]), None)
    if fact is None:
        pytest.skip("a baseline of ours")
    card, found = MODELS[name].card, measured(name)
    if fact["params"]:
        assert found["params"] == fact["params"]
    if "tensors" in fact:
        assert found["tensors"] + LONG_AGO * ("ctranspath" in name) == fact["tensors"]
    assert card.dim == fact["pooling"]["default_dim"]
    if fact.get("tokens") and "ctranspath" not in name:
        assert found["prefix_tokens"] == fact["tokens"]["num_prefix_tokens"]
        assert (card.register_tokens or 0) == fact["tokens"]["num_register_tokens"]
    eyes = fact["transform"]
    assert (list(card.mean), list(card.std), card.size) == (eyes["mean"], eyes["std"], eyes["input_size"])
    assert card.interpolation == (eyes.get("interpolation") or "bicubic")
    assert card.crop == (0.875 if eyes["resize"] == 256 else 1.0)
    assert card.mpp == (
        None if fact["mpp"] == "any" else tuple(fact["mpp"]) if isinstance(fact["mpp"], list) else fact["mpp"]
    )
    assert (card.hub or None) == (fact["hf_repo"] if "hest-bench" not in str(fact["hf_repo"]) else None)
    assert (card.revision or None) == fact.get("revision")
    assert card.file in ("", *(f.split()[0] for f in fact["files"])) or not fact["hf_repo"] or "CTransPath" in card.file
    gflops = fact.get("gflops_native") or fact.get("gflops_224")
    assert gflops is None or card.gflops == pytest.approx(gflops, rel=0.01)


def test_the_facts_that_can_be_built_are_here(shared):
    facts = yaml.safe_load(shared("facts", "models.yaml").read_text())["models"]
    remote = {n for n, f in facts.items() if f["build"].get("trust_remote_code") or f["build"]["loader"] == "none"}
    unknown_parts = {"pathoduet", "mettle"}  # the facts name their parts and do not describe them
    assert set(facts) - remote - unknown_parts <= set(MODELS)


@pytest.mark.parametrize(("alias", "name"), [("uni-v2", "uni2-h"), ("uni-1.5", "uni2-h"), ("g2l-breast", "g2l-brca")])
def test_other_names_lead_to_the_same_model(alias, name):
    assert MODELS[alias] is MODELS[name]


def test_a_card_that_miscounts_registers_is_refused():
    model = MODELS["dinov3-s16"]
    wrong = type(model)(dataclasses.replace(model.card, prefix_tokens=1))
    assert "registers would leak" in measure(wrong)["problem"]


def test_a_word_that_stands_for_no_class_is_refused():
    card = dataclasses.replace(MODELS["h0-mini"].card, arch_options={"mlp_layer": "SwigluPacked"})
    assert "Known: SwiGLUPacked" in measure(type(MODELS["h0-mini"])(card))["problem"]


def test_registers_never_reach_the_mean_of_patches():
    import torch

    from eosin_models.readouts import of_tokens

    tokens = torch.zeros(2, 5 + 16, 3)
    tokens[:, :5] = 100.0  # class token and four registers
    found = of_tokens(tokens, 5)
    assert found["mean"].abs().max() == 0 and found["grid"].abs().max() == 0
    assert found["grid"].shape == (2, 3, 4, 4)
    tokens[:, 5 + 6] = 1.0
    assert found["grid"].shape == (2, 3, 4, 4) and of_tokens(tokens, 5)["grid"][0, 0, 1, 2] == 1.0


def test_memory_says_which_batch_fits(measured):
    giant = measured("h-optimus-0")
    assert giant["memory"]["weights_mb"] == pytest.approx(4539, abs=1)
    assert fit(giant, "24GB")["fits"] and not fit(giant, "4 GB")["fits"]
    small = fit(giant, "6GB")
    assert small["fits"] and small["batch_size"] < fit(giant, "24GB")["batch_size"]
    assert largest_batch(10, 100) == 8 and largest_batch(10, 1) == 1 and largest_batch(1, 1e9) == 128
    assert free_mb("cpu") is None


def test_memory_on_the_way_is_what_a_forward_pass_really_needs():
    """Against a count by hand: the pixels, what a linear layer makes of them, and its activation live at once."""
    from torch import nn

    class Two(FeatureExtractor):
        card = ModelCard("two", size=8, dim=100_000)

        def skeleton(self):
            import torch

            with torch.device("meta"):
                return nn.Sequential(nn.Flatten(), nn.Linear(192, 100_000), nn.ReLU())

    found = measure(Two())
    assert found["memory"]["tile_mb"] == pytest.approx((192 + 2 * 100_000) * 4 / 1e6, abs=0.05)
    assert found["gflops"] == pytest.approx(2 * 192 * 100_000 / 1e9, abs=1e-3)
