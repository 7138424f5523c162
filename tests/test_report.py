"""`bench report`: one file, everything in it, nothing from outside; whatever a record says is shown as words."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from eosin import leaderboard, published
from eosin.axes import Labels, Scale
from eosin.cli import main
from eosin.drawing import SHAPES, Sheet, png, svg
from eosin.figures import figures
from eosin.gathered import gather, unsound
from eosin.report import report
from report_cases import MODELS, catalogue, demo, keep, made, many

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'\u2028\ud800"


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag
        if tag in ("script", "style"):
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside in ("script", "style"):
            self.scripts[-1] += data

    @property
    def data(self):
        return json.loads(self.scripts[1])


def page_of(results, **more) -> Page:
    records, left = leaderboard.collect([results])
    assert not left
    found = gather(records)
    return Page(report(found, figures(found), "A title", "0.1.0", **more))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    demo(folder)
    return folder


def run(*words: str):
    return CliRunner().invoke(main, [str(w) for w in words])


# --- the page


def test_nothing_is_loaded_from_outside(results):
    page = page_of(results)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "iframe", "object", "embed", "audio", "video", "base"}
    for tag, attributes in page.elements:
        assert not {n for n in attributes if n.startswith("on") or n in ("src", "style", "srcset", "action")}, tag
        link = attributes.get("href") or attributes.get("xlink:href") or "#"
        assert link.startswith("#") or link == "data:,"
    css, _, js = page.scripts
    assert not re.search(r"@import|url\(|https?:", css)
    assert not re.search(
        r"fetch\(|XMLHttpRequest|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|import\(", js
    )


def test_the_policy_allows_the_page_s_own_script_and_style_and_no_other(results):
    page = page_of(results)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    css, _, js = page.scripts
    for kind, text in (("style", css), ("script", js)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy


def test_the_data_are_the_records(results):
    data = page_of(results).data
    records, _ = leaderboard.collect([results])
    assert len(data["cells"]) == len(records) == 152
    by = {
        (data["models"][m]["label"], c, data["metrics"][metric]): numbers
        for m, c, scores, _ in data["cells"]
        for metric, *numbers in scores
    }
    for r in records[::7]:
        title = r["benchmark"]["name"] + (
            " (grouped folds)" if r["protocol"]["options"].get("folds") == "grouped" else ""
        )
        column = next(i for i, c in enumerate(data["columns"]) if c["title"] == title)
        for metric, s in r["scores"].items():
            mean, std, low, high, values, n = by[r["model"]["name"], column, metric]
            assert (mean, n) == (pytest.approx(s["mean"], rel=1e-4), len(s["values"]))
            assert values == pytest.approx(s["values"], rel=1e-3)
            assert (low is None) == (s["low"] is None) and (std is None) == (s["std"] is None)


def test_each_number_says_how_to_repeat_it_and_what_it_was_made_with(results):
    records, _ = leaderboard.collect([results])
    found = gather(records)
    own = {"tp53-knn": dict(next(c.options for c in found.columns if c.benchmark == "tp53-knn" and c.folds == "paper"))}
    data = Page(report(found, [], "t", "0.1.0", commands=own)).data
    commands = {c["title"]: c["command"] for c in data["columns"]}
    assert commands["tp53-knn"] == " --benchmark tp53-knn"
    assert commands["tp53-knn (grouped folds)"] == " --benchmark tp53-knn --option folds=grouped"
    assert "--option k=" in commands["idc-knn"]  # of a benchmark that is not installed every option is named
    assert data["models"][0]["command"].startswith("bench run --model ")
    name = found.models[0].name
    data = Page(report(found, [], "t", "0.1.0", models={name})).data
    commands = {m["name"]: m["command"] for m in data["models"]}
    assert commands.pop(name) == f"bench run --model {name}" and commands
    assert all(c == f"bench run --model path/to/{n}.yaml" for n, c in commands.items()), "no catalogue lists these"
    assert ["python", "3.12.8"] in data["environments"][0]["facts"] and len(data["environments"]) == 1
    _, _, scores, (seen, notes, how, facts, environment) = data["cells"][0]
    assert (
        seen == environment == 0
        and len(how) == len(scores)
        and data["texts"][notes[0]] == "One class has 12 patients only."
    )
    assert data["texts"][how[0]] == "bootstrap of patients, 1000 resamples"
    assert {k: data["texts"][t] for k, t in zip(data["facts"], facts, strict=False)}["readout"] == "cls"


def test_what_a_model_has_seen_is_marked():
    leaky = made("phikon", "tils-knn", "g2l-knn@1", {"accuracy": [0.9]})
    leaky["model"]["seen"], leaky["dataset"]["sources"] = ["tcga"], ["tcga-brca"]
    clean = made("resnet50", "tils-knn", "g2l-knn@1", {"accuracy": [0.8]})
    clean["model"]["seen"], clean["dataset"]["sources"] = ["imagenet-1k"], ["tcga-brca"]
    data = Page(report(gather([leaky, clean]), [], "t", "0.1.0")).data
    marked, unmarked = (cell[3] for cell in data["cells"])
    assert marked[0] == 1 and "phikon was trained on tcga" in data["texts"][marked[1][0]]
    assert unmarked[0] == 0 and unmarked[1] == []


def test_hostile_words_stay_words(tmp_path):
    records = []
    for params in (10**6, 10**7):
        bad = made("x", "x-knn", "g2l-knn@1", {"accuracy": [0.5, 0.6]}, notes=[HOSTILE], created=HOSTILE)
        bad["model"] |= {"title": HOSTILE, "licence": HOSTILE, "seen": [HOSTILE], "params": params}
        bad["model"]["name"] = f"{HOSTILE}{params}"
        bad["dataset"] |= {"title": HOSTILE, "classes": [HOSTILE], "warnings": [{"message": HOSTILE}]}
        bad["environment"] = {"python": HOSTILE, "versions": {HOSTILE: HOSTILE}}
        bad["benchmark"] |= {"name": HOSTILE, "title": HOSTILE}
        bad["protocol"] = {"name": HOSTILE, "options": {HOSTILE: HOSTILE}}
        bad["path"] = tmp_path / "a" / HOSTILE
        bad["embed"][0]["device_name"] = HOSTILE
        assert unsound(bad) == ""
        records.append(bad)
    found = gather(records)
    drawn = figures(found)
    assert [f.name for f in drawn] == ["accuracy-parameters", "accuracy-speed"]
    text = report(found, drawn, HOSTILE, "0.1.0", suites={HOSTILE: [HOSTILE]}, left=[HOSTILE])
    text = text.encode("utf-8", "replace").decode()
    page = Page(text)
    assert not [t for t, _ in page.elements if t == "img"] and len(page.scripts) == 3
    shown = page.data
    assert shown["models"][0]["label"].startswith("</script><img src=x onerror=alert(1)>&\"'")
    assert "--option " in shown["columns"][0]["command"] and "'" in shown["columns"][0]["command"]
    for figure in drawn:
        assert all("onerror" not in e.attrib for e in ElementTree.fromstring(svg(figure.sheet, figure.title)).iter())


def test_every_label_and_table_can_be_reached_by_keyboard(results):
    page = page_of(results)
    for tag, attributes in page.elements:
        if "scroll" in (attributes.get("class") or ""):
            assert attributes["tabindex"] == "0" and (attributes.get("aria-label") or attributes.get("aria-labelledby"))
        if tag == "svg":
            assert attributes["role"] == "img" and attributes["aria-label"]
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, a in page.elements:
        if (a.get("href") or "").startswith("#"):
            assert a["href"][1:] in ids


# --- the figures


def test_a_figure_without_data_is_left_out(results, tmp_path):
    records, _ = leaderboard.collect([results])
    assert [f.name for f in figures(gather(records))] == [
        "accuracy-parameters", "accuracy-speed", "plism-cosine-top5", "plism-scanner-staining", "robustness-index-k",
        "folds-gap", "heat-map", "genes-hest-idc",
    ]  # fmt: skip
    keep(tmp_path, made("phikon", "idc-knn", "g2l-knn@1", {"accuracy": [0.7]}))
    page = page_of(tmp_path)
    assert not [t for t, _ in page.elements if t == "figure"]
    assert "#figures" not in [a.get("href") for _, a in page.elements]


def test_points_lie_where_their_values_are(results):
    records, _ = leaderboard.collect([results])
    found = gather(records)
    figure = figures(found)[0]
    marks = {m["tip"].partition(":")[0]: m for m in figure.sheet.marks if m["is"] == "mark"}
    assert set(marks) == {n for n in MODELS if MODELS[n][0]}
    column = next(i for i, c in enumerate(found.columns) if c.benchmark == "tp53-linear")
    score = {found.models[c.model].name: c.mean("auroc") for c in found.of(column)}
    points = np.array([[np.log(MODELS[n][0]), score[n], m["x"], m["y"]] for n, m in marks.items()])
    for value, place in ((0, 2), (1, 3)):
        slope, at = np.polyfit(points[:, value], points[:, place], 1)
        assert np.abs(slope * points[:, value] + at - points[:, place]).max() < 0.1
        assert (slope > 0) == (place == 2)  # up is more


def test_the_headline_can_be_chosen(results):
    records, _ = leaderboard.collect([results])
    found = gather(records)
    assert figures(found, "idc-knn")[0].title.startswith("idc-knn: accuracy")
    assert figures(found, "nothing")[0].name != "accuracy-parameters"


def test_the_gap_is_paper_minus_grouped(tmp_path):
    for folds, value in (("paper", 0.9), ("grouped", 0.75)):
        keep(tmp_path, made("phikon", "idc-knn", "g2l-knn@1", {"accuracy": [value]}, options={"folds": folds}))
    keep(tmp_path, made("phikon", "tils-knn", "g2l-knn@1", {"accuracy": [0.5]}, options={"folds": "paper"}))
    records, _ = leaderboard.collect([tmp_path])
    (figure,) = figures(gather(records))
    assert figure.name == "folds-gap"
    assert "+0.150" in [m["text"] for m in figure.sheet.marks if m["is"] == "text"]


def test_printed_values_stand_in_their_column_as_rings(results):
    records, _ = leaderboard.collect([results])
    names = published.Names(catalogue())
    rows = [r for r in published.rows(catalogue()) if r["benchmark"].startswith("tp53")]
    found = gather(records, rows, names, {})
    column = next(i for i, c in enumerate(found.columns) if c.benchmark == "tp53-knn" and c.folds == "paper")
    printed = {found.models[c.model].name: c for c in found.of(column) if c.record is None}
    assert printed["g2l-brca"].printed and set(printed["g2l-brca"].scores) == {"accuracy"}
    data = Page(report(found, [], "t", "0.1.0")).data
    assert {m["source"] for m in data["models"]} == {"measured", "g2l 2025-10"}
    shown = [run_ for m, _, _, run_ in data["cells"] if data["models"][m]["source"] != "measured"]
    said = {k: t for k, t in zip(data["facts"], shown[0][3], strict=False) if t is not None}
    assert data["texts"][said["paper"]] == "g2l" and data["texts"][said["table"]] == "table2"


def test_two_records_of_one_address_that_differ_are_two_rows():
    a = made("phikon", "idc-knn", "g2l-knn@1", {"accuracy": [0.7, 0.8]})
    b = made("phikon", "idc-knn", "g2l-knn@1", {"accuracy": [0.7, 0.9]})
    found = gather([a, b, a])
    assert len(found.cells) == 2 and len({m.label for m in found.models}) == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"benchmark": {"name": "x", "metric": "auroc"}}, "lack auroc"),
        ({"scores": {"accuracy": {"mean": "high", "values": []}}}, "not a number"),
        ({"scores": {"accuracy": {"mean": 1.0}}}, "no values"),
        ({"scores": {"accuracy": 0.5}}, "no values"),
        ({"model": {"name": None}}, "model.name"),
        ({"protocol": {"name": "x", "options": []}}, ""),
        ({"protocol": {"name": "x", "options": [1]}}, "not a mapping"),
    ],
)
def test_what_cannot_be_shown_is_named(change, why):
    found = unsound({**made("m", "x", "p@1", {"accuracy": [0.5]}), **change})
    assert (found == "") == (why == "") and why in found


def test_scales_hold_their_values_and_ticks_are_round():
    s = Scale.over([0.7, 0.9], 0, 100)
    assert 0 < s.at(0.7) < s.at(0.9) < 100 and s.ticks() == pytest.approx([0.7, 0.75, 0.8, 0.85, 0.9])
    log = Scale.over([3e6, 1e9], 0, 100, log=True)
    assert set(log.ticks()) <= {s * 10.0**p for p in range(6, 10) for s in (1, 2, 3, 5)} and len(log.ticks()) > 2
    assert Scale.over([0.5, 0.5], 0, 1).at(0.5) == pytest.approx(0.5)
    assert Scale.over([7, 7], 0, 1, log=True).at(7) == pytest.approx(0.5)


def test_labels_do_not_lie_on_each_other():
    sheet, labels = Sheet(200, 100), Labels((0, 0, 200, 100))
    placed = sum(labels.place(sheet, 100, 50, "a-model") for _ in range(30))
    assert 1 < placed < 30 and len(labels.taken) == placed


def test_svg_is_xml_and_png_shows_the_same_sheet():
    sheet = Sheet(60, 40)
    for i, shape in enumerate(SHAPES):
        sheet.mark(shape, 5 + 7 * i, 10, 3, "c1", "a <tip> & more")
    sheet.line([(0, 20), (60, 20)], "c0", 2, dash=True)
    sheet.text(30, 35, 'words <&"> \x01', 8, "middle", angle=-45)
    sheet.box(50, 30, 10, 10, "#00ff00")
    tree = ElementTree.fromstring(svg(sheet, 'a "title" <'))
    assert tree.attrib["aria-label"] == 'a "title" <'
    kinds = [e.tag.rpartition("}")[2] for e in tree.iter()]
    assert kinds.count("title") == len(SHAPES) and "var(" not in svg(sheet, "")
    assert "var(--c1)" in svg(sheet, "", alone=False)
    import io

    image = np.asarray(Image.open(io.BytesIO(png(sheet, 2))))
    assert image.shape == (80, 120, 3)
    assert tuple(image[70, 110]) == (0, 255, 0) and tuple(image[2, 2]) == (255, 255, 255)
    assert (np.abs(image[10:30, 4:16].astype(int) - (213, 94, 0)).sum(-1) < 30).any()  # c1, a circle


# --- the command


def test_the_command_writes_report_and_figures(results, tmp_path):
    done = run("report", "--results", results, "--out", tmp_path / "r.html", "--figures", tmp_path / "f", "--suite", "plism", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["records"] == 8 and any(n.endswith("-cosine-top5") for n in said["figures"])
    names = sorted(p.name for p in (tmp_path / "f").iterdir())
    assert names == sorted(f"{n}.{s}" for n in said["figures"] for s in ("png", "svg"))
    for path in (tmp_path / "f").glob("*.svg"):
        ElementTree.parse(path)
    data = Page((tmp_path / "r.html").read_text()).data
    assert {c["benchmark"] for c in data["columns"]} == {"plism", "plism-leaderboard"}
    assert list(data["suites"]) == ["plism"]


def test_only_measured_and_a_damaged_record_is_named(results, tmp_path):
    broken = tmp_path / "m@0123456789ab"
    broken.mkdir()
    (broken / "x@0123456789ab.json").write_text("{")
    out = tmp_path / "r.html"
    done = run("report", "--results", results, "--results", tmp_path, "--with", "measured", "--out", out, "--headline", "idc-knn")  # fmt: skip
    assert done.exit_code == 0 and "x@0123456789ab.json is damaged" in done.stderr
    text = out.read_text()
    assert "x@0123456789ab.json is damaged" in text and "Left out" in text
    assert {m["source"] for m in Page(text).data["models"]} == {"measured"}
    assert str(tmp_path) not in text


def test_errors_say_the_next_step(results, tmp_path):
    done = run("report", "--results", tmp_path, "--out", tmp_path / "r.html")
    assert done.exit_code == 1 and "bench run" in done.stderr and not (tmp_path / "r.html").exists()
    done = run("report", "--results", results, "--headline", "tp53", "--out", tmp_path / "r.html")
    assert done.exit_code == 2 and "tp53-knn" in done.stderr


@pytest.mark.slow
def test_twelve_thousand_records_in_seconds_and_megabytes(tmp_path):
    many(tmp_path / "results", 200, 60)
    start = time.process_time()
    done = run("report", "--results", tmp_path / "results", "--with", "measured", "--out", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    print(f"{time.process_time() - start:.1f} s, {(tmp_path / 'r.html').stat().st_size / 1e6:.1f} MB")
    assert (tmp_path / "r.html").stat().st_size < 10e6
    assert len(Page((tmp_path / "r.html").read_text()).data["cells"]) == 12_000
