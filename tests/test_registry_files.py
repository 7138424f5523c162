"""Registry files and cards: rows are read as written, and each slip is named with file, row, key and what would be right."""

from __future__ import annotations

import pytest

from eosin.cards import BenchmarkCard, DatasetCard, ModelCard, Option, ProtocolCard, fingerprint
from eosin.errors import CardError, EosinError, MissingError, UsageError
from eosin.registry import read_card, read_registry


@pytest.fixture
def read(tmp_path):
    """read(text): the registry of a file with this text."""

    def read(text: str | bytes):
        path = tmp_path / "registry.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_registry(path)

    return read


def test_the_file_of_the_design_is_read_as_it_stands(read, tmp_path):
    found = read(
        """
datasets:   {tissue: {kind: manifest, mpp: 1.0}}
benchmarks: {tissue-knn: {dataset: tissue, protocol: g2l-knn@1, metric: accuracy}}
models:     {ours: {kind: timm, arch: vit_small_patch16_224, weights: ours.safetensors, mean: [.7, .58, .7], std: [.21, .23, .18]}}
suites:     {mine: [tissue-knn, idc-knn]}
"""
    )
    (model,), (dataset,), (benchmark,), (suite,) = found.models, found.datasets, found.benchmarks, found.suites
    assert model.mean == (0.7, 0.58, 0.7) and model.weights == str(tmp_path / "ours.safetensors")
    assert dataset.mpp == 1.0 and benchmark.protocol == "g2l-knn@1" and suite.benchmarks == ("tissue-knn", "idc-knn")


@pytest.mark.parametrize("text", ["", "# nothing\n", "models:\n", "models: {}\ndatasets:\n", "\ufeffmodels: {}\n"])
def test_an_empty_file_is_an_empty_registry(read, text):
    assert read(text).models == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: {a: {kind: timm, archh: x}}", r"registry.yaml: model a: unknown key 'archh'. Known keys: .*arch"),
        ("modles: {}", r"unknown section modles. Sections: models, datasets"),
        ("[1, 2]", r"a registry file has the sections models"),
        ("just text", r"a registry file has the sections"),
        ("models: [a, b]", r"section models maps names to rows"),
        ("models: {a: 3}", r"model a: a row is a mapping"),
        ("models: {a: [1]}", r"model a: a row is a mapping"),
        ("models: {a: {dim: wide}}", r"model a: dim cannot be 'wide'|dim must be a whole number, not 'wide'"),
        ("models: {a: {dim: 0}}", r"dim must be at least 1"),
        ("models: {a: {size: -1}}", r"size must be at least 1 pixel"),
        ("models: {a: {crop: 1.5}}", r"crop is a share between 0 and 1"),
        ("models: {a: {mean: [0.5, 0.5]}}", r"mean must be tuple\[float, float, float\], not \[0.5, 0.5\]"),
        ("models: {a: {std: [0, 1, 1]}}", r"std is of pixels from 0 to 1"),
        ("models: {a: {std: [.nan, 1, 1]}}", r"std"),
        (
            "models: {a: {mean: [123.7, 116.3, 103.5]}}",
            r"mean is of pixels from 0 to 1; divide numbers of 0 … 255 by 255",
        ),
        ("models: {a: {seed: 99999999999999999999}}", r"seed is a number from 0 to 2\^31"),
        ("models: {a: {mpp: .nan}}", r"mpp is um per pixel"),
        ("datasets: {a: {mpp: 0}}", r"mpp is um per pixel"),
        (f"models: {{{'a' * 300}: {{size: 9}}}}", r"200 at most"),
        ("models: {a: {interpolation: cubic}}", r"interpolation is nearest, bilinear, bicubic or lanczos"),
        ("models: {a: {precision: fp8}}", r"precision is fp32, fp16 or bf16"),
        ("models: {a: {size: true}}", r"size must be a whole number, not True"),
        ("models: {a: {title: [x]}}", r"title must be text"),
        ("models: {a: {options: 3}}", r"options must be"),
        ("models: {a b: {}}", r"model name 'a b': use letters"),
        ("models: {../a: {}}", r"model name '../a'"),
        ("models: {a@../../x: {}}", r"model name 'a@../../x'"),
        ("models: {'': {}}", r"model name ''"),
        ("models: {a: {}, a: {}}", r"the key 'a' stands twice.*line 1"),
        ("models:\n  a: {size: 3\n  b: {}", r"registry.yaml is not valid YAML: .*line \d"),
        ("models: {a: !!python/object/apply:os.system ['true']}", r"not valid YAML"),
        ("models: {? [a] : {}}", r"not valid YAML|a row|use letters"),
        ("models: {? {a: b} : {}}", r"not valid YAML|a row|use letters"),
        ("benchmarks: {a: {protocol: x@1, metric: m}}", r"benchmark a: dataset is missing"),
        ("benchmarks: {a: {dataset: d}}", r"benchmark a: metric is missing"),
        ("suites: {a: tissue-knn}", r"suite a: a row is a mapping"),
        ("suites: {a: [[x]]}", r"suite a: benchmarks must be"),
        ("published: {a: b}", r"published"),
        (b"models: {a: {title: '\xff\xfe'}}", r"not valid YAML"),
        (b"\x00\x01\x02", r"not valid YAML"),
        ("a: &a [*a]", r"unknown section a|not valid YAML"),
    ],
)
def test_a_slip_is_named(read, text, said):
    with pytest.raises(CardError, match=said) as error:
        read(text)
    assert "registry.yaml" in str(error.value) and error.value.exit_code == 2


def test_a_date_is_text(read):
    (card,) = read("models: {a: {options: {when: 2024-01-01}, title: 2024-01-01}}").models
    assert card.options == {"when": "2024-01-01"} and card.title == "2024-01-01" and card.fingerprint


def test_published_may_be_one_name_or_a_list(read, tmp_path):
    assert read("published: board.csv").published == [tmp_path / "board.csv"]
    assert read("published: [a.csv, b.csv]").published == [tmp_path / "a.csv", tmp_path / "b.csv"]


def test_absent_and_unreadable_files(tmp_path):
    with pytest.raises(MissingError, match="There is no file .*--registry"):
        read_registry(tmp_path / "absent.yaml")
    with pytest.raises(CardError, match="cannot be read"):
        read_registry(tmp_path)


def test_places_are_read_from_the_file_and_other_addresses_are_left(read, tmp_path):
    row = "{{kind: timm, arch: x, weights: {}}}"
    for written, meant in {
        "w.pth": str(tmp_path / "w.pth"),
        "../w.pth": str(tmp_path / "../w.pth"),
        "/abs/w.pth": "/abs/w.pth",
        "package:p/w.pth": "package:p/w.pth",
    }.items():
        assert read("models: {a: " + row.format(f'"{written}"') + "}").models[0].weights == meant


def test_a_card_file_a_folder_and_a_registry_of_one(tmp_path):
    (tmp_path / "ours.yaml").write_text("kind: timm\narch: test_vit\n")
    assert read_card(tmp_path / "ours.yaml").name == "ours"
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "card.yaml").write_text("kind: timm\narch: test_vit\nweights: model.safetensors\n")
    found = read_card(folder)
    assert found.name == "student" and found.weights == str(folder / "model.safetensors")
    (tmp_path / "one.yaml").write_text("models: {inner: {kind: timm, arch: test_vit}}\n")
    assert read_card(tmp_path / "one.yaml").name == "inner"
    (tmp_path / "named.yaml").write_text("name: other\nkind: timm\n")
    assert read_card(tmp_path / "named.yaml").name == "other"


@pytest.mark.parametrize("text", ["", "[]", "3", "kind: timm\nwieghts: x\n", "name: [1]\n", "name: 'a/b'\n"])
def test_a_bad_card_file_is_named(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(CardError, match="bad.yaml"):
        read_card(tmp_path / "bad.yaml")


def test_a_card_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path / "absent" / "card.yaml"):
        with pytest.raises(MissingError, match="There is no file .*--model"):
            read_card(path)
    with pytest.raises(MissingError, match="card.yaml"):
        read_card(tmp_path)


# ---- fingerprints


def test_a_fingerprint_is_over_facts_and_not_over_notes_and_places():
    card = ModelCard("a", dim=3)
    assert card.fingerprint == ModelCard("a", dim=3, title="A", paper="p", weights="/x", seen=["tcga"]).fingerprint
    assert len({card.fingerprint, ModelCard("b", dim=3).fingerprint, ModelCard("a", dim=4).fingerprint}) == 3


def test_equal_facts_in_another_spelling_are_equal():
    assert (
        ModelCard("a", mean=[0, 0, 0], crop=1).fingerprint == ModelCard("a", mean=(0.0, 0.0, 0.0), crop=1.0).fingerprint
    )
    assert fingerprint({"b": 1, "a": [1, 2]}) == fingerprint({"a": (1, 2), "b": 1})
    assert DatasetCard("d", root="/a", base="/b").fingerprint == DatasetCard("d").fingerprint


def test_cards_are_frozen():
    with pytest.raises(AttributeError):
        ModelCard("a").dim = 3
    assert BenchmarkCard("b", dataset="d", metric="m").protocol == "b@1"


# ---- options of protocols


CARD = ProtocolCard(
    "p",
    options={
        "k": Option(15),
        "c": Option(1.0),
        "how": Option("a", ("a", "b")),
        "on": Option(True),
        "best": Option(None, int),
    },
)


def test_options_are_completed_and_read_from_text():
    assert CARD.name == "p@1"
    assert CARD.complete({}) == {"k": 15, "c": 1.0, "how": "a", "on": True, "best": None}
    assert CARD.complete({"k": "7", "c": "2", "how": "b", "on": "false", "best": "3"}) == {
        "k": 7,
        "c": 2.0,
        "how": "b",
        "on": False,
        "best": 3,
    }


@pytest.mark.parametrize(
    "given", [{"kk": 1}, {"k": "many"}, {"k": "1.5"}, {"how": "c"}, {"on": "maybe"}, {"c": "x"}, {"k": "true"}, {"c": "true"}, {"best": "x"}, {"k": "none"}]
)  # fmt: skip
def test_a_wrong_option_is_a_usage_error_that_names_it(given):
    with pytest.raises(UsageError, match=f"p@1.*{next(iter(given))}"):
        CARD.complete(given)


def test_a_version_that_contradicts_the_name():
    with pytest.raises(CardError, match="version"):
        ProtocolCard("p@2", version=3)


def test_the_built_in_registry_is_sound():
    from eosin.plugins import built_in_registry

    found = read_registry(built_in_registry())
    names = {c.name for c in found.benchmarks}
    for suite in found.suites:
        assert set(suite.benchmarks) <= names | {"all"}, f"suite {suite.name} lists benchmarks that no row holds"
    assert all(p.is_file() for p in found.published)


def test_errors_carry_their_exit_codes():
    assert (EosinError.exit_code, UsageError.exit_code, CardError.exit_code, MissingError.exit_code) == (1, 2, 2, 3)
