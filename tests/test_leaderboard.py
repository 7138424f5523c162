"""The leaderboard: golden records in, golden tables out; what escapes what; merging, ranks, damage, size.

A case is a folder of tests/cases/leaderboard: `records` (and perhaps other folders of records), `commands` (a line an output:
file, arguments), and the outputs. EOSIN_CASES=update writes the outputs again.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from eosin import leaderboard, record, standing, tables
from helpers import bench

CASES = Path(__file__).parent / "cases" / "leaderboard"
LINES = [
    (case.name, *line.split(" ", 1))
    for case in sorted(CASES.iterdir())
    for line in (case / "commands").read_text(encoding="utf-8").splitlines()
]
HOSTILE = CASES / "hostile"


def run(case: str, arguments: str = "") -> str:
    words = [w.format(case=CASES / case) for w in arguments.split()]
    done = bench("leaderboard", "--results", CASES / case / "records", *words)
    assert done.code == 0, done.err
    return done.out


@pytest.mark.parametrize("case, output, arguments", [(*line, "")[:3] for line in LINES])
def test_golden_records_give_golden_tables(case, output, arguments):
    made, path = run(case, arguments), CASES / case / output
    if os.environ.get("EOSIN_CASES") == "update":
        path.write_text(made, encoding="utf-8", newline="")
    with path.open(encoding="utf-8", newline="") as handle:
        assert made == handle.read()


def records_of(case: str) -> list[dict]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted((CASES / case / "records").glob("*/*.json"))]


@pytest.mark.parametrize("case", ["plain", "hostile", "questions"])
def test_csv_reads_back_to_the_same_numbers(case):
    read = pd.read_csv(io.StringIO(run(case, "--format csv")), float_precision="round_trip")
    assert list(read.columns[:11]) == [
        "model",
        "benchmark",
        "protocol",
        "folds",
        "metric",
        "mean",
        "std",
        "low",
        "high",
        "n",
        "source",
    ]
    found = sorted(read[["mean", "n"]].itertuples(index=False, name=None))
    assert found == sorted((s["mean"], r["dataset"]["rows"]) for r in records_of(case) for s in r["scores"].values())
    wide = pd.read_csv(io.StringIO(run(case, "--format csv --wide")), float_precision="round_trip")
    values = wide[wide["model"] != "majority"].drop(columns=["mean", "mean rank", "wins"]).select_dtypes("number")
    kept = [c for c in values.columns if not c.endswith(" std")]
    assert sorted(values[kept].stack()) == sorted(m for m, _ in found)


def test_a_spreadsheet_executes_nothing():
    for arguments in ("--format csv", "--format csv --wide"):
        for row in pd.read_csv(io.StringIO(run("hostile", arguments)), dtype=str, keep_default_na=False).to_numpy():
            for cell in row:
                assert not re.match(r"\s*[=+@\t\r]|\s*-(?![\d.])", cell), cell


class Page(HTMLParser):
    """Which tags a page has, and that each that opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(k.startswith("on") or k in ("src", "href") for k, _ in attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_shows_names_and_runs_nothing():
    page = Page()
    page.feed(run("hostile", "--format html"))
    allowed = set(
        [
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "h1",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "b",
            "u",
            "sup",
            "br",
            "ol",
            "li",
        ]
    )
    assert page.open == [] and page.tags <= allowed
    assert "<script>alert(1)</script>" in "".join(page.text)


def test_markdown_keeps_its_cells():
    lines = [line for line in run("hostile", "--format markdown").splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line))) for line in lines}
    assert len(bars) == 1 and not any("<script" in line or "\x1b" in line for line in lines)


def latex_faults(text: str) -> list[str]:
    """A small parser: braces and environments close, each row has a cell a column, nothing special stands bare."""
    faults, depth, math, environments = [], 0, False, []
    text = re.sub(r"(?m)^%.*$", "", text)
    for token in re.findall(r"\\[A-Za-z]+|\\.|[{}$&#_%~^]|[^\\{}$&#_%~^]+", text, re.S):
        if token == "{":
            depth += 1
        elif token == "}":
            depth -= 1
            faults += ["a brace closes that was not open"] * (depth < 0)
        elif token == "$":
            math = not math
        elif token in ("#", "_", "%", "~", "^"):
            faults.append(f"bare {token}")
        elif token.startswith("\\") and token not in KNOWN:
            faults.append(f"unknown command {token}")
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        environments.append(name) if what == "begin" else faults.extend(["environment"] * (environments.pop() != name))
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])
    for row in re.split(r"\\\\\n", body.replace("\\midrule", "").replace("\\toprule", ""))[:-1]:
        cells = len(re.findall(r"(?<!\\)&", row)) + 1
        if "\\multicolumn" not in row and cells != columns:
            faults.append(f"{cells} cells of {columns}: {row.strip()}")
        if re.match(r"\s*[\[*]", row):
            faults.append(f"a row that LaTeX reads as an argument of the one before: {row.strip()}")
    return faults + ["open braces"] * (depth != 0) + ["open maths"] * math + environments


KNOWN = set(
    [
        r"\begin",
        r"\end",
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\multicolumn",
        r"\textbf",
        r"\underline",
        r"\textit",
        r"\textsuperscript",
        r"\textbackslash",
        r"\textasciitilde",
        r"\textasciicircum",
        r"\textless",
        r"\textgreater",
        r"\textbar",
        r"\textquotedbl",
        r"\pm",
        r"\times",
        r"\geq",
        r"\ldots",
        r"\texttt",
        r"\par",
        r"\footnotesize",
        r"\{",
        r"\}",
        r"\$",
        r"\&",
        r"\#",
        r"\_",
        r"\%",
        r"\\",
    ]
)


@pytest.mark.parametrize(
    "arguments", ["plain", "hostile", "beside --suite g2l --reproduce table2", "beside --reproduce claims"]
)
def test_latex_is_sound(arguments):
    case, _, more = arguments.partition(" ")
    assert latex_faults(run(case, f"{more} --format latex")) == []


def test_the_latex_parser_sees_faults():
    frame = "\\begin{tabular}{lr}\n\\toprule\na & b \\\\\n\\midrule\n%s \\\\\n\\bottomrule\n\\end{tabular}\n"
    assert latex_faults(frame % "x & 1") == []
    for bad in ("x_y & 1", "x & 1 & 2", "{x & 1", "[2em] & 1", "\\input{x} & 1", "$x & 1", "x"):
        assert latex_faults(frame % bad), bad


def test_a_terminal_gets_no_control_characters():
    out = run("hostile")
    assert all(c.isprintable() or c == "\n" for c in out)


def test_copies_merge_and_contradictions_are_shown():
    done = bench("leaderboard", "--results", CASES / "merge/records", "--results", CASES / "merge/more", "--json")
    rows = done.json["rows"]
    means = sorted((r["model"], r["mean"]) for r in rows if r["benchmark"] == "one-knn")
    assert means == [("alpha", 0.9), ("beta", 0.8), ("beta", 0.81), ("gamma", 0.7)]
    assert "warning: conflict: beta on one-knn: 2 records of one address differ: 0.800 ± 0.010 in" in done.err
    again = bench("leaderboard", "--results", CASES / "merge/records", "--results", CASES / "merge/records", "--json")
    assert len(again.json["rows"]) == len(records_of("merge")) and "conflict" not in again.err


def rows(**values: list[float | None]) -> list[dict]:
    """Models with a number in column 0, 1, … each."""
    made = []
    for model, numbers in values.items():
        for i, v in enumerate(numbers):
            if v is not None:
                scores = {"m": {"mean": v, "std": None, "low": None, "high": None, "values": [v]}}
                made.append(
                    {
                        "model": {"name": model, "fingerprint": model},
                        "benchmark": {"name": f"b{i}", "fingerprint": f"q{i}", "metric": "m"},
                        "protocol": {"name": "p@1"},
                        "dataset": {"rows": 3},
                        "scores": scores,
                    }
                )
    return leaderboard.long_rows(made)


def body(table: tables.Table) -> dict[str, list[tables.Cell]]:
    return {r[0].text: r[1:] for r in table.rows}


def test_best_second_ties_ranks_wins():
    found = body(standing.wide(rows(a=[0.9, 0.5], b=[0.9004, 0.6], c=[0.8, 0.7], d=[0.1, 0.7])))
    assert [[c.mark for c in found[m][:2]] for m in "abcd"] == [["best", ""], ["best", ""], ["", "best"], ["", "best"]]
    assert [found[m][3].number for m in "abcd"] == [2.75, 2.25, 2.25, 2.75]  # ties share the mean of their ranks
    assert [found[m][4].number for m in "abcd"] == [1, 1, 1, 1]
    alone = body(standing.wide(rows(a=[0.9, 0.5], b=[0.8, 0.4], c=[0.8, None])))
    assert [alone[m][0].mark for m in "abc"] == ["best", "second", "second"]


def test_a_mean_over_other_columns_is_marked_and_stands_below():
    table = standing.wide(rows(most=[0.99, 0.98, None], all_=[0.6, 0.5, 0.4]), sort="mean")
    assert [r[0].text for r in table.rows] == ["all_", "most"]
    found = body(table)
    assert found["most"][3].text == "0.985 (2/3)" and found["most"][4].text == "1.00 (2/3)"
    assert found["most"][2].text == tables.MISSING and "not comparable" in table.notes[found["most"][3].notes[0] - 1]
    assert found["all_"][3].text == "0.500" and found["all_"][3].notes == ()


def test_less_is_better_where_the_card_says_so():
    given = rows(a=[0.9, 0.1], b=[0.8, 0.2])
    for r in given:
        r["better"] = "lower" if r["benchmark"] == "b1" else "higher"
    table = standing.wide(given)
    found = body(table)
    assert [c.mark for c in found["a"][:2]] == ["best", "best"] and found["a"][2].text == tables.MISSING
    assert "less is better in b1 m" in " ".join(table.notes)


def test_sorting_by_nothing_known():
    done = bench("leaderboard", "--results", CASES / "plain/records", "--sort", "beauty")
    assert done.code == 2 and "one-knn" in done.err and "rank" in done.err
    assert bench("leaderboard", "--reproduce", "table9").code == 2
    assert "--suite eva --reproduce table2" in bench("leaderboard", "--reproduce", "table2").err


DAMAGE = {
    "half": lambda r: json.dumps(r, indent=1)[:900],
    "foreign": lambda r: json.dumps({"hello": 1}),
    "list": lambda r: "[1]",
    "later": lambda r: json.dumps({**r, "encoding-version": "9"}),
    "older": lambda r: json.dumps({k: v for k, v in r.items() if k != "protocol"}),
    "nan": lambda r: json.dumps({**r, "scores": {"accuracy": {**r["scores"]["accuracy"], "mean": float("nan")}}}),
    "words": lambda r: (
        json.dumps({**r, "scores": {"accuracy": {**r["scores"]["accuracy"], "std": "much"}}}, indent=1) + "\n"
    ),
    "flat": lambda r: json.dumps({**r, "scores": {"accuracy": 0.5}}, indent=1) + "\n",
    "nameless": lambda r: json.dumps({**r, "model": {"name": 3, "fingerprint": "x"}}, indent=1) + "\n",
    "readout": lambda r: json.dumps({**r, "readout": "cls"}),
    "empty": lambda r: "",
    "bytes": lambda r: b"\xff\xfe\x00",
    "deep": lambda r: "[" * 100_000,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_record_is_named_and_left_out(how, tmp_path):
    shutil.copytree(CASES / "plain" / "records", tmp_path / "records")
    path = next((tmp_path / "records").glob("alpha*/one*.json"))
    made = DAMAGE[how](json.loads(path.read_text()))
    path.write_bytes(made if isinstance(made, bytes) else made.encode())
    done = bench("leaderboard", "--results", tmp_path / "records", "--json")
    assert done.code == 0 and "left out" in done.err and str(path) in done.err
    assert len(done.json["rows"]) == len(records_of("plain")) - 1
    assert len(leaderboard.collect([tmp_path / "records"])[1]) == 1, "read whole, it is left out as well"


def test_what_is_skimmed_is_what_is_read(tmp_path):
    path = next((CASES / "plain" / "records").glob("alpha*/one*.json"))
    content = {
        **json.loads(path.read_text()),
        "details": {"a": ['\n "predictions": 1', {"scores": 3}]},
        "notes": ["x\n}\n"],
    }
    record.write(tmp_path / "r.json", {k: v for k, v in content.items() if not k.startswith("encoding")})
    whole, skimmed = record.read(tmp_path / "r.json"), record.read(tmp_path / "r.json", {})
    assert skimmed == {k: v for k, v in whole.items() if k.encode() in record.SKIMMED} and "details" not in skimmed


def test_out_writes_the_file_and_prints_nothing(tmp_path):
    done = bench("leaderboard", "--results", CASES / "plain/records", "--format", "csv", "--out", tmp_path / "t.csv")
    assert done.out == "" and (tmp_path / "t.csv").read_text() == (CASES / "plain" / "long.csv").read_text()


def test_published_and_measured_share_a_column_only_where_the_question_is_one():
    done = bench("leaderboard", "--results", CASES / "beside/records", "--with", "both", "-b", "idc-knn", "--json")
    assert {r["source"] for r in done.json["rows"]} == {"measured", "published"}
    head, *lines = (CASES / "beside" / "idc.md").read_text().splitlines()
    columns = [c.strip() for c in head.strip("|").split("|")]
    ours = next(line for line in lines if line.startswith("| ours"))
    assert len([c for c in columns if c.startswith("idc-knn")]) == 3, "as asked, k=5, and grouped folds"
    published = [line.split("|") for line in lines if "g2l table2" in line]
    assert len(published) == 6 and all(p[4].strip() == p[5].strip() == "–" for p in published), published[0]
    assert len(set(columns)) == len(columns) and "idc-knn accuracy with k=5" in columns
    assert "0.8000" in ours and "0.770" in ours and "0.790" in ours


def test_records_as_run_writes_them_are_skimmed_and_shared(tmp_path):
    """What benchmarks/leaderboard_speed.py measures on 12,000 records, on 30."""
    import runpy

    made = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "leaderboard_speed.py"))["make"]
    assert made(tmp_path / "r", 10, 3) == 30
    whole, left = leaderboard.collect([tmp_path / "r"])
    skimmed, _ = leaderboard.collect([tmp_path / "r"], skim=True)
    assert not left and leaderboard.long_rows(whole) == leaderboard.long_rows(skimmed)
    assert "details" in whole[0] and "details" not in skimmed[0] and skimmed[0]["model"] is skimmed[1]["model"]
    table = standing.wide(leaderboard.long_rows(skimmed), efficiency=leaderboard.efficiency(skimmed))
    assert len(table.rows) == 11 and table.rows[1][-3].text == "100.0" and table.rows[1][-1].text == "a card"
