"""Tests that walk the registry: a row is tested the moment it exists."""

from __future__ import annotations

import pytest

from eosin.errors import MissingError
from eosin.plugins import Catalogue, built_in_registry
from eosin.registry import read_registry

CATALOGUE = Catalogue()
NAMES = {s: sorted(getattr(CATALOGUE, s).things) for s in ("models", "datasets", "benchmarks", "protocols", "suites")}


def test_no_plugin_failed_and_no_name_is_taken_twice():
    for section in (*NAMES, "recipes"):
        shelf = getattr(CATALOGUE, section)
        assert not shelf.clashes and not shelf.problems, section
    assert [p.error for p in CATALOGUE.plugins] == [""] * len(CATALOGUE.plugins)


@pytest.mark.parametrize("name", NAMES["benchmarks"])
def test_a_benchmark_finds_what_it_names(name):
    benchmark = CATALOGUE.benchmark(name)
    for need in benchmark.needs().values():
        assert need.dataset in CATALOGUE.datasets.things
    if benchmark.protocol is not None:
        options = benchmark.protocol.card.complete(benchmark.card.options)
        assert set(options) == set(benchmark.protocol.card.options)
        assert benchmark.card.metric in benchmark.protocol.card.metrics


@pytest.mark.parametrize("name", NAMES["suites"])
def test_a_suite_lists_benchmarks_that_exist_once_each(name):
    listed = CATALOGUE.suite(name)
    assert listed and len(set(listed)) == len(listed)
    assert set(listed) <= set(NAMES["benchmarks"])


@pytest.mark.parametrize("name", NAMES["datasets"])
def test_absent_data_say_how_to_get_them(name, tmp_path):
    dataset = CATALOGUE.datasets.get(name, "")
    assert dataset.card.title and dataset.card.licence, "a dataset's card says what it is and under which licence"
    if name == "phantom":
        return  # made on first use
    assert not dataset.present(tmp_path / "nowhere")
    with pytest.raises(MissingError, match="How to get it:"):
        dataset.locate(tmp_path / "nowhere")


@pytest.mark.parametrize("name", NAMES["protocols"])
def test_a_protocol_explains_each_option(name):
    card = CATALOGUE.protocol(name).card
    assert card.metrics and card.notes, "a protocol names its metrics and its source"
    for option, o in card.options.items():
        assert o.doc, f"{name}: option {option} has no sentence"
        assert o.read(name, option, o.default) == o.default


@pytest.mark.parametrize("name", NAMES["models"])
def test_a_model_says_where_it_comes_from(name):
    card = CATALOGUE.models.get(name, "").card
    assert card.title and card.licence and card.seen
    assert card.readouts and card.dim
    assert card.readout


def test_fingerprints_differ_between_cards_and_not_between_looks():
    again = read_registry(built_in_registry())
    for section in ("models", "datasets", "benchmarks"):
        cards = getattr(again, section)
        prints = [(c.name, c.fingerprint) for c in cards]
        assert len(set(prints)) == len(cards)
        assert prints == [(c.name, c.fingerprint) for c in getattr(read_registry(built_in_registry()), section)]
