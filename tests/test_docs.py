"""The documentation is held to the program: every hook, field, option and command has its sentence, examples are files
that are tested elsewhere, snippets run. Commands: test_docs_commands."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from eosin import cards, cli, hookspecs
from eosin.plugins import Catalogue
from eosin.registry import read_card, read_registry

TOP = Path(__file__).parents[1]
DOCS = TOP / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *TOP.glob("*.md")])
FENCE = re.compile(r"(?:<!-- (?P<mark>[^\n]+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.S)
README_COMMANDS = (
    "pip install '.[demo]' && bench run --model efficientnet-lite0 --suite phantom",
    "pip install '.[test]' && pytest",
)


def blocks(page: str) -> list[tuple[str, str, str]]:
    """(mark, language, text) of every fenced block."""
    return [(m["mark"] or "", m["kind"], m["text"]) for m in FENCE.finditer((DOCS / page).read_text())]


def table_rows(text: str) -> dict[str, list[str]]:
    """The rows of markdown tables whose first cell is `code`: {code: the other cells}."""
    rows = [
        [c.strip() for c in line.strip().strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


def section(page: str, title: str) -> str:
    """The text below a heading of the second rank, up to the next."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", (DOCS / page).read_text(), re.S | re.M)
    assert found, f"docs/{page} has no section {title!r}"
    return found[1]


# --- hooks, cards, protocols


@pytest.mark.parametrize("hook", [n for n in vars(hookspecs) if n.startswith("provide_")])
def test_every_hook_is_documented_with_its_signature(hook):
    signature = f"### `{hook}({', '.join(inspect.signature(getattr(hookspecs, hook)).parameters)})`"
    assert signature in (DOCS / "hooks.md").read_text().splitlines()


def test_no_hook_is_documented_that_does_not_exist():
    documented = re.findall(r"^### `(\w+)\(", (DOCS / "hooks.md").read_text(), re.M)
    assert documented == [n for n in vars(hookspecs) if n.startswith("provide_")]


CARDS = {
    "models": cards.ModelCard,
    "datasets": cards.DatasetCard,
    "benchmarks": cards.BenchmarkCard,
    "protocols": cards.ProtocolCard,
    "suites": cards.SuiteCard,
    "recipes": cards.RecipeCard,
}


@pytest.mark.parametrize("title", CARDS)
def test_every_field_of_a_card_is_documented_with_its_sort(title):
    rows = table_rows(section("registry.md", title))
    fields = {f.name: f.metadata.get("sort", "fact") for f in dataclasses.fields(CARDS[title])}
    assert {name: cells[0] for name, cells in rows.items()} == fields
    assert all(len(cells) == 3 and cells[2] for cells in rows.values()), "a field without a sentence"


@pytest.mark.parametrize("title", CARDS)
def test_documented_defaults_are_the_defaults(title):
    """Plain numbers and words; "" and none stand as an empty cell, ImageNet's and the like in words."""
    rows = table_rows(section("registry.md", title))
    for field in dataclasses.fields(CARDS[title]):
        if field.name in ("name", "mean", "std"):
            continue
        default = (
            field.default_factory()
            if field.default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING
            else field.default
        )
        if default is dataclasses.MISSING or rows[field.name][1] in ("required", "the name with `@1`", "from the name"):
            continue
        text = (
            f"[{', '.join(default)}]"
            if isinstance(default, tuple) and default
            else ""
            if default in ("", None)
            else str(default)
        )
        assert rows[field.name][1] == text, field.name


def test_every_card_class_is_documented():
    found = {
        c for c in vars(cards).values() if isinstance(c, type) and issubclass(c, cards.Card) and c is not cards.Card
    }
    assert found == set(CARDS.values())


@pytest.mark.parametrize("name", sorted(Catalogue().protocols.things))
def test_every_option_of_a_protocol_is_documented(name):
    """Name, default and allowed values; `none` is no value."""
    card = Catalogue().protocol(name).card
    rows = table_rows(section("protocols.md", name))
    said = {option: (cells[0], cells[1]) for option, cells in rows.items()}
    real = {
        n: (
            "none" if o.default is None else str(o.default),
            ", ".join(o.allowed) if isinstance(o.allowed, tuple) else "",
        )
        for n, o in card.options.items()
    }
    assert said == real
    text = section("protocols.md", name)
    assert all(f"`{metric}`" in text for metric in card.metrics) and f"ddof {card.ddof}" in text


def test_every_key_of_a_record_is_documented():
    """Keys are read from the code that writes them: `_record` returns one literal."""
    import ast
    import textwrap

    from eosin.run import Runner

    tree = ast.parse(textwrap.dedent(inspect.getsource(Runner._record)))
    literal = [n for n in ast.walk(tree) if isinstance(n, ast.Return)][-1].value
    assert isinstance(literal, ast.Dict)
    keys = {k.value for k in literal.keys if isinstance(k, ast.Constant)} | {"encoding-type", "encoding-version"}
    documented = {
        k
        for line in section("record.md", "Keys").splitlines()
        if line.startswith("| `")
        for k in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    assert documented == keys


DESIGNED = (
    "__init__ errors cards record hookspecs extractor dataset benchmark recipe views metrics probes folds stats tiling "
    "store embed distill plugins run leaderboard report cli console"
)


def test_every_file_of_the_core_beyond_the_design_is_explained():
    text = (DOCS / "decisions" / "0003-more-files-in-the-core.md").read_text()
    explained = {name for row in re.findall(r"^\| (`.*?) \|", text, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert explained == {p.stem for p in (TOP / "src" / "eosin").glob("*.py")} - set(DESIGNED.split())


def test_the_store_page_has_the_constants_of_the_code():
    from eosin import claims, store

    text = (DOCS / "store.md").read_text()
    assert f"`{store.ENCODING} {store.VERSION} blake2b-16 <digest>`" in text
    assert f"first {store.HEAD} bytes" in text and f"{claims.STALE:.0f} seconds" in text
    sizes = [store.block_size(n) for n in (1, 65_536, 65_537, 131_072, 131_073, 1_048_576, 1_048_577, 10**8)]
    assert sizes == [256, 256, 512, 512, 1024, 4096, 8192, 8192]


# --- examples


@pytest.mark.parametrize(
    ("page", "thing"),
    [
        ("write-a-model.md", "mine"),
        ("write-a-benchmark.md", "fibro"),
        ("write-a-benchmark.md", "stain_gap"),
        ("write-a-recipe.md", "cosine"),
    ],
)
def test_printed_plugins_are_the_tested_files(page, thing):
    folder = TOP / "tests" / "third_party" / f"eosin-{thing.replace('_', '-')}"
    texts = [text for _, _, text in blocks(page)]
    for file in (f"eosin_{thing}.py", "pyproject.toml"):
        assert (folder / file).read_text() in texts, f"docs/{page} does not print {folder.name}/{file} as it is"


def test_the_readme_prints_the_same_card_and_class():
    readme = [text for _, _, text in (m.groups() for m in FENCE.finditer((TOP / "README.md").read_text()))]
    assert next(text for mark, _, text in blocks("write-a-model.md") if mark == "card") in readme
    mine = (TOP / "tests" / "third_party" / "eosin-mine" / "eosin_mine.py").read_text()
    assert mine.partition("\n")[2] in readme, "the class, without the comment that names its file"


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text()], ids=lambda p: p.stem)
def test_python_in_the_docs_is_python(page):
    for _, kind, text in (m.groups() for m in FENCE.finditer(page.read_text())):
        if kind == "python":
            body = text.replace("\n    ", "\n        ")
            compile(text if not text.startswith("return") else f"def f():\n    {body}", str(page), "exec")


def test_the_printed_card_and_registries_are_read(tmp_path):
    card = next(text for mark, _, text in blocks("write-a-model.md") if mark == "card")
    (tmp_path / "card.yaml").write_text(card)
    assert read_card(tmp_path).weights == str(tmp_path / "ours.safetensors") and len(card.splitlines()) <= 10
    for page in ("write-a-benchmark.md", "registry.md", "data.md", "quickstart.md"):
        for _, kind, text in blocks(page):
            if kind == "yaml" and re.match(r"(models|datasets|benchmarks|suites): ", text.replace(":\n", ": ", 1)):
                file = tmp_path / "registry.yaml"
                file.write_text(text)
                found = read_registry(file)
                catalogue = Catalogue([file])
                assert found.models or found.benchmarks
                for benchmark in found.benchmarks:
                    protocol = catalogue.benchmark(benchmark.name).protocol
                    assert protocol is not None and protocol.card.complete(benchmark.options)
                    assert benchmark.dataset in catalogue.datasets.things and benchmark.metric in protocol.card.metrics


def test_the_protocol_that_is_printed_scores():
    import numpy as np

    import eosin

    names: dict[str, object] = {}
    exec(next(text for _, _, text in blocks("protocols.md") if "class NearestOne" in text), names)
    protocol = names["provide_protocols"]()[0]  # type: ignore[operator]
    y = np.tile([0, 0, 1, 1], 5)
    emb = eosin.Embeddings(
        X=y[:, None] * 9.0 + np.eye(20), id=np.arange(20).astype(str), y=y, split=np.tile(["train", "test"], 10)
    )
    assert protocol.score(emb, distance="euclidean") == {"accuracy": 1.0}


def test_the_loader_that_is_printed_reads(tmp_path):
    for name in ("p1/0_a.png", "p1/1_b.png", "p2/1_c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names: dict[str, object] = {}
    exec(next(text for _, _, text in blocks("write-a-benchmark.md") if "class Cores" in text), names)
    (dataset,) = names["provide_datasets"]([cards.DatasetCard("x", kind="cores"), cards.DatasetCard("y")])  # type: ignore[operator]
    table = dataset.items(tmp_path)
    assert table["label"].tolist() == [0, 1, 1] and table["group"].tolist() == ["p1", "p1", "p2"]


def test_the_quickstart_runs(tmp_path, monkeypatch):
    """Its marked blocks, in order, in one folder: files are written, Python is executed, `bench` lines must end with 0."""
    monkeypatch.chdir(tmp_path)
    ran = 0
    for mark, kind, text in blocks("quickstart.md"):
        if mark.startswith("file: "):
            Path(mark.removeprefix("file: ")).write_text(text)
        elif mark == "run" and kind == "python":
            exec(compile(text, "quickstart.md", "exec"), {})
        elif mark == "run":
            for line in text.splitlines():
                done = CliRunner().invoke(cli.main, shlex.split(line)[1:], catch_exceptions=False)
                assert done.exit_code == 0, f"{line}\n{done.output}"
                ran += 1
                if "--readout mean" in line:
                    assert json.loads(done.stdout)["embedded"] == 0, "the page says that nothing is embedded again"
    assert ran >= 8


# --- README and links


def test_the_readme_has_the_two_commands_once_each_as_they_are():
    lines = (TOP / "README.md").read_text().splitlines()
    for command in README_COMMANDS:
        assert lines.count(command) == 1
        assert lines[lines.index(command) - 1].startswith("```"), "in a fenced block of its own"


def test_the_readme_lists_the_extras_and_suites_that_exist():
    import tomllib

    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    text = (TOP / "README.md").read_text()
    assert set(re.findall(r"^\| `\[(\w+)\]`", text, re.M)) == set(project["optional-dependencies"])
    shown = yaml.safe_load((TOP / "registry.yaml").read_text())
    baselines = ("color-stats", "random-vit-s", "resnet50", "efficientnet-lite0")
    for name in [*shown["suites"], *shown["datasets"], *baselines, *Catalogue().protocols.things]:
        assert f"`{name}`" in text, f"the README does not say that there is {name}"


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(TOP).as_posix())
def test_relative_links_resolve(page):
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"", text):
        link = target[0] or target[1]
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {link} does not exist"
        if anchor:
            assert anchor in {slug(h) for h in re.findall(r"^#+ (.+)$", there.read_text(), re.M)}, (
                f"{page.name}: {link}"
            )


def test_pages_name_no_machine():
    """No path of somebody's disk, and no address of a registry: such lines work for their writer only."""
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(work|tmp|home|root|Users)/", page.read_text()), page
