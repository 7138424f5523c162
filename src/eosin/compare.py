"""Models against each other, from records: each difference with its interval and p, what is best, and ranks over a suite.

Only the same question is compared: records of one benchmark fingerprint (protocol, options, readout, rows, labels).
Which test is used when, and what it can say: docs/statistics.md.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from . import paired, record, stats
from .errors import DataError, EosinError, UsageError
from .paired import Difference

ALPHA = 0.05
TOLERANCE = 1e-4  # between a record's score and the same score from its predictions
ALIKE, BETTER = "not distinguishable", "{} is better"

Record = dict[str, Any]
GroupsOf = Callable[[Record, np.ndarray], np.ndarray | None]  # the patient of each id; None: not known here


@dataclass
class Contest:
    """What was compared, and what could not be.

    Attributes:
        pairs: one dict a pair of models and question. scores: one a model and question, with its mark.
        ranks: mean rank of each model over the `counted` questions that all of them have; `critical`: what is no difference.
        missing: records that are to be made, each with its command. refused: records that answer different questions.
    """

    models: list[str]
    pairs: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    ranks: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    critical: float | None = None
    friedman: float | None = None
    missing: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def compare(
    records: Iterable[Record],
    models: Sequence[str],
    benchmarks: Sequence[str],
    groups_of: GroupsOf = lambda r, ids: None,
    wanted: Mapping[str, str] | None = None,
    metric: str | None = None,
    resamples: int = paired.RESAMPLES,
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
    names: Mapping[str, str] | None = None,
) -> Contest:
    """Every pair of the models on every benchmark.

    Args:
        models: names as in the records; `name@fingerprint` (or its beginning) where a name has several.
        groups_of: finds the patients of predictions that do not carry them.
        wanted: protocol options that the records must have, as text, where one benchmark was run with several.
        metric: in place of each benchmark's own. names: how each model was asked for, where not by its name.

    Raises:
        UsageError: fewer than two models, the same one twice, a name that stands for several models.
    """
    if len(models) < 2 or len(set(models)) < len(models):
        raise UsageError("A comparison needs two different models: bench compare A B --suite S.")
    kept = _wanted([r for r in records if r["benchmark"].get("name") in set(benchmarks)], wanted or {})
    own = {m: of_model(kept, m) for m in models}
    contest, tests = Contest(list(models)), []
    for number, name in enumerate(benchmarks):
        watch("comparing", number, len(benchmarks))
        questions = _questions(
            contest, name, {m: [r for r in own[m] if r["benchmark"]["name"] == name] for m in models}, names or {}
        )
        for found in questions:
            title = _title(found, questions)
            tests += _pairs(contest, title, found, groups_of, metric, resamples)
    watch("comparing", len(benchmarks), len(benchmarks))
    for pair, p in zip(tests, paired.holm([math.nan if t["p"] is None else t["p"] for t in tests]), strict=True):
        pair["p_holm"] = record.finite(p)
        better = pair["a"] if (pair["difference"] > 0) == (pair["better"] == "higher") else pair["b"]
        pair["verdict"] = BETTER.format(better) if p <= ALPHA else ALIKE if math.isfinite(p) else "not testable"
    _mark(contest)
    _rank(contest)
    return contest


def of_model(records: Iterable[Record], asked: str) -> list[Record]:
    """The records of one model; UsageError where its name stands for several."""
    name, _, mark = asked.partition("@")
    found = [
        r for r in records if r["model"].get("name") == name and str(r["model"].get("fingerprint", "")).startswith(mark)
    ]
    marks = sorted({str(r["model"].get("fingerprint")) for r in found})
    if len(marks) > 1:
        raise UsageError(
            f"{asked} stands for {len(marks)} models, which differ in card, weights or code. Name one: {' or '.join(f'{name}@{m}' for m in marks)}."
        )
    return found


def _wanted(records: list[Record], wanted: Mapping[str, str]) -> list[Record]:
    known = {k for r in records for k in r["protocol"].get("options") or {}}
    strange = [k for k in wanted if k not in known]
    if strange and records:
        raise UsageError(f"No record here has the option {', '.join(strange)}. Options: {', '.join(sorted(known))}.")

    def fits(r: Record) -> bool:
        options = r["protocol"].get("options") or {}
        return all(k not in options or str(options[k]) == v for k, v in wanted.items())

    return [r for r in records if fits(r)]


def asked(model: str, names: Mapping[str, str]) -> str:
    """The word by which a model was asked for, as a shell takes it: its name alone may be known to nobody."""
    return shlex.quote(names.get(model) or model.partition("@")[0])


def _questions(contest: Contest, benchmark: str, of: dict[str, list[Record]], names: Mapping[str, str]) -> list[dict[str, Record]]:  # fmt: skip
    """{model: record} of every question that two of the models or more have answered; what is missing is said."""
    by_question: dict[str, dict[str, Record]] = {}
    torn: set[tuple[str, str]] = set()
    for model, found in of.items():
        for r in found:
            question = str(r["benchmark"].get("fingerprint"))
            kept = by_question.setdefault(question, {}).setdefault(model, r)
            if kept["scores"] != r["scores"]:
                torn.add((question, model))
                contest.refused.append(
                    f"{model} on {benchmark}: {kept.get('path')} and {r.get('path')} have one address and different scores. Remove one, or run it again."
                )
    for question, model in torn:
        del by_question[question][model]
    lacking = [m for m in of if not of[m]]
    for model in lacking:
        contest.missing.append(
            f"{model} has no record of {benchmark}. Make it: bench run --model {asked(model, names)} --benchmark {benchmark}"
        )
    shared = [found for found in by_question.values() if len(found) > 1]
    there = [m for m in of if of[m]]
    for model in there:
        if len(there) > 1 and not torn and not any(model in found for found in shared):
            other = next(m for m in there if m != model)
            contest.refused.append(
                f"{model} and {other} on {benchmark} answer different questions: {differs(of[model][-1], of[other][-1])}. Run both with the same."
            )
    return shared


def differs(a: Record, b: Record) -> str:
    """In what two records of one benchmark are not the same question."""

    def facts(r: Record) -> dict[str, Any]:
        options = {f"option {k}": v for k, v in (r["protocol"].get("options") or {}).items()}
        data = {f"dataset's {k}": r["dataset"].get(k) for k in ("name", "fingerprint", "rows")}
        return {"protocol": r["protocol"].get("name"), **options, **data, "readout asked": r["benchmark"].get("readout"), "against": r.get("against")}  # fmt: skip

    mine, theirs = facts(a), facts(b)
    found = [f"{k} {mine.get(k)} and {theirs.get(k)}" for k in {**mine, **theirs} if mine.get(k) != theirs.get(k)]
    return ", ".join(found) or "the benchmark's card or readout changed between them"


def _title(found: dict[str, Record], questions: list[dict[str, Record]]) -> str:
    """The benchmark's name, and the options that tell its questions apart where there are several."""
    options = [next(iter(q.values()))["protocol"].get("options") or {} for q in questions]
    own = next(iter(found.values()))
    varied = [k for k in options[0] if len({str(o.get(k)) for o in options}) > 1]
    said = ", ".join(f"{k} {(own['protocol'].get('options') or {}).get(k)}" for k in varied)
    if len(questions) > 1 and not said:
        said = own["benchmark"]["fingerprint"][:6]
    return own["benchmark"]["name"] + (f" ({said})" if said else "")


def _pairs(
    contest: Contest, title: str, found: dict[str, Record], groups_of: GroupsOf, metric: str | None, resamples: int
) -> list[dict[str, Any]]:
    """The score of each model and the difference of each pair on one question, added to the contest; the pairs."""
    first = next(iter(found.values()))
    name = metric or str(first["benchmark"].get("metric"))
    better = first["benchmark"].get("better", "higher") if name == first["benchmark"].get("metric") else "higher"
    known = {m: r for m, r in found.items() if (r["scores"].get(name) or {}).get("mean") is not None}
    for model in found.keys() - known.keys():
        contest.refused.append(f"{model} on {title} has no value of {name}.")
    for model, r in known.items():
        s = r["scores"][name]
        contest.scores.append(
            {
                "benchmark": title,
                "metric": name,
                "better": better,
                "model": model,
                **{k: s.get(k) for k in ("mean", "std", "low", "high")},
            }  # fmt: skip
        )
    kept = {m: predictions(r, name, groups_of) for m, r in known.items()} if len(known) > 1 else {}
    pairs = []
    for a, b in combinations(known, 2):
        try:
            d = difference(name, known[a], known[b], kept[a], kept[b], resamples)
        except EosinError as error:
            contest.refused.append(f"{a} and {b} on {title}: {error}")
            continue
        numbers = {k: record.finite(v) for k, v in asdict(d).items() if k in ("low", "high", "p")}
        pairs.append(
            {
                **{"benchmark": title, "metric": name, "better": better, "a": a, "b": b},
                **{"score_a": known[a]["scores"][name]["mean"], "score_b": known[b]["scores"][name]["mean"]},
                **{"difference": d.value, **numbers, "p_holm": None, "verdict": "", "test": d.how, "units": d.units},
            }
        )
    contest.pairs += pairs
    return pairs


def predictions(r: Record, metric: str, groups_of: GroupsOf) -> dict[str, np.ndarray] | str:
    """The predictions beside a record with the patient of each row, or why they cannot be used."""
    if metric not in stats.BY_WEIGHT or not r.get("predictions") or "path" not in r:
        return ""
    path = record.predictions_path(r["path"])
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {k: file[k] for k in file.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        return f"{path.name} cannot be read ({error})"
    if not {"id", "y", "score"} <= set(found):
        return ""
    if "group" not in found and "patients" in str((r.get("intervals") or {}).get(metric)):
        group = groups_of(r, found["id"])
        if group is None:
            return f"the patients of {r['dataset'].get('name')} are not known on this machine"
        found["group"] = group
    if "group" in found:
        found["group"] = np.where(found["group"] == "", found["id"], found["group"])
    else:
        found["tiles"] = np.ones(len(found["id"]), bool)
    return found


def difference(metric: str, a: Record, b: Record, of_a: Any, of_b: Any, resamples: int) -> Difference:
    """One difference by the best test that the two records allow: predictions, pairs of slides, fold values."""
    own = [r["scores"][metric] for r in (a, b)]
    value, why = float(own[0]["mean"] - own[1]["mean"]), next((t for t in (of_a, of_b) if isinstance(t, str) and t), "")
    if isinstance(of_a, dict) and isinstance(of_b, dict):
        d = paired.of_predictions(metric, of_a, of_b, resamples)
        if abs(d.value - value) < TOLERANCE:
            unit = "tiles" if "tiles" in of_a else "patients"
            return Difference(value, d.low, d.high, d.p, d.how.replace("groups", unit), d.units)
        why = f"predictions give {d.value:.4f}"
    elif (pairs := _slide_pairs(metric, a, b)) is not None:
        d = paired.of_pairs(*pairs)
        if abs(d.value - value) < TOLERANCE:
            return d
        why = f"pairs give {d.value:.4f}"
    x, z = ([math.nan if v is None else v for v in s.get("values") or []] for s in own)
    ratio, folds = _ratio(a, len(x))
    d = paired.of_values(x, z, ratio)
    how = (folds or d.how) + (f" ({why})" if why else "")
    return Difference(value, d.low, d.high, d.p, how, d.units)


def _ratio(r: Record, values: int) -> tuple[float, str]:
    """Test rows over training rows of a record's folds, and the words where they are no folds at all."""
    options = r["protocol"].get("options") or {}
    if "runs" in options:
        return 0.0, f"paired t over {values} runs of one split: the luck of training alone, not other patients"
    if "seeds" in options:
        return 1 / 3, ""  # 6:2:2
    folds = max(2, values // max(1, int(options.get("repeats") or 1)))
    return 1 / (folds - 1), ""


def _slide_pairs(metric: str, a: Record, b: Record) -> Any:
    """Arguments of `paired.of_pairs` where both records list pairs of slides; None where they do not."""
    of: list[Any] = [(r.get("details") or {}).get("pairs") for r in (a, b)]
    if not all(isinstance(p, Mapping) and {"a", "b", "group"} <= set(p) for p in of) or of[0]["a"] != of[1]["a"]:
        return None
    if of[0]["b"] != of[1]["b"] or of[0]["group"] != of[1]["group"]:
        return None
    groups = ((a.get("details") or {}).get("groups") or {}).get(metric) or {}
    parts = [_part(n, of[0]) for n in groups.get("of") or [metric]]
    if not all(parts):
        return None
    columns = list(dict.fromkeys(p[0] for p in parts if p))
    values = [np.column_stack([np.asarray(p[c], float) for c in columns]) for p in of]
    group = np.asarray(of[0]["group"])

    def statistic(v: np.ndarray, keep: np.ndarray) -> float:
        medians = []
        for column, name in (p for p in parts if p):
            rows = keep & ((name == "all") | (group == name))
            medians.append(np.median(v[rows, columns.index(column)]) if rows.any() else math.nan)
        return float(np.mean(medians))

    return statistic, *values, np.column_stack([of[0]["a"], of[0]["b"]])


def _part(name: str, pairs: Mapping[str, Any]) -> tuple[str, str] | None:
    """(column, group of pairs) of a metric such as top10_both."""
    if name in pairs:
        return name, "all"
    return next(((c, g) for g in dict.fromkeys(pairs["group"]) for c in pairs if name == f"{c}_{g}"), None)


def _mark(contest: Contest) -> None:
    """`best`, or `alike`: not distinguishable from the best (p adjusted for the whole table)."""
    for title in dict.fromkeys(s["benchmark"] for s in contest.scores):
        rows = [s for s in contest.scores if s["benchmark"] == title]
        best = (max if rows[0]["better"] == "higher" else min)(rows, key=lambda s: s["mean"])
        for s in rows:
            ends = {best["model"], s["model"]}
            test = next((p for p in contest.pairs if p["benchmark"] == title and {p["a"], p["b"]} == ends), None)
            s["mark"] = "best" if s is best else "" if test is None or test["p_holm"] is None else "alike" if test["p_holm"] > ALPHA else "worse"  # fmt: skip


def _rank(contest: Contest) -> None:
    """Mean ranks over the questions that every model has answered, and Nemenyi's critical difference."""
    titles = [
        t
        for t in dict.fromkeys(s["benchmark"] for s in contest.scores)
        if sum(s["benchmark"] == t for s in contest.scores) == len(contest.models)
    ]
    if len(contest.models) < 3 or len(titles) < 2:
        return
    of = {(s["model"], s["benchmark"]): s for s in contest.scores}
    scores = [[of[m, t]["mean"] for t in titles] for m in contest.models]
    lower = [of[contest.models[0], t]["better"] == "lower" for t in titles]
    contest.ranks = dict(zip(contest.models, paired.ranks(scores, lower).tolist(), strict=True))
    contest.counted = len(titles)
    contest.critical = paired.critical_difference(len(contest.models), len(titles))
    contest.friedman = record.finite(paired.friedman(scores))


def refuse_all(contest: Contest) -> None:
    """DataError or MissingError where nothing at all could be compared."""
    if contest.pairs:
        return
    from .errors import MissingError

    if contest.refused:
        raise DataError("\n".join([*contest.refused, *contest.missing]))
    raise MissingError("\n".join(contest.missing) or "No records to compare. Make some: bench run --model A --suite S")
