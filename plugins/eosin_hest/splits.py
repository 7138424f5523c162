"""HEST-Benchmark's split files, read as they were shipped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from eosin.dataset import names_below
from eosin.errors import DataError
from eosin.table import read_csv

FILE = re.compile(r"(train|test)_(\d+)\.csv")
COLUMNS = ("sample_id", "patches_path", "expr_path")


@dataclass(frozen=True)
class Split:
    """Where a sample's patches and counts lie, relative to the task's folder."""

    patches: str
    counts: str


Splits = dict[int, dict[str, tuple[str, ...]]]


def read_splits(folder: Path) -> tuple[Splits, dict[str, Split], list[str]]:
    """{fold: {"train": samples, "test": samples}}, the files of each sample by name, and warnings.

    Only `train_<k>.csv` and `test_<k>.csv` count; HEST itself counts the files of the folder and halves.

    Raises:
        DataError: a partner file is missing, a sample stands on both sides or twice, or two files disagree on its paths.
    """
    place = folder / "splits"
    if not place.is_dir():
        raise DataError(f"{place} is missing: it says which samples are tested together. Download the task again.")
    names = {(int(m[2]), m[1]): n for n in names_below(place) if (m := FILE.fullmatch(n))}
    if not names:
        raise DataError(f"{place} holds no train_<k>.csv and test_<k>.csv. Download the task again.")
    splits: Splits = {}
    samples: dict[str, Split] = {}
    for k in sorted({k for k, _ in names}):
        for part in ("train", "test"):
            if (k, part) not in names:
                raise DataError(f"{place / f'{part}_{k}.csv'} is missing, and its partner is there. Download it again.")
            splits.setdefault(k, {})[part] = _read(place / names[k, part], samples)
        both = set(splits[k]["train"]) & set(splits[k]["test"])
        if both:
            raise DataError(
                f"{place}: {sorted(both)[0]} stands in train_{k}.csv and in test_{k}.csv. Correct one of them."
            )
    spare = [n for n in names_below(folder / "patches") if n.endswith(".h5")] if (folder / "patches").is_dir() else []
    used = {PurePosixPath(s.patches).name for s in samples.values()}
    unused = [n for n in spare if n not in used]
    return (
        splits,
        dict(sorted(samples.items())),
        [f"{len(unused)} patch files are in no split: {', '.join(unused[:3])}"] if unused else [],
    )


def columns_of(splits: Splits, samples: Sequence[str]) -> dict[str, list]:
    """What a table says of the splits, a value a sample: `fold`, or `split_<k>` where one number cannot say it."""
    tested = [s for parts in splits.values() for s in parts["test"]]
    whole = all(set(parts["train"]) == set(samples) - set(parts["test"]) for parts in splits.values())
    if whole and sorted(tested) == sorted(samples):
        fold = {s: k for k, parts in splits.items() for s in parts["test"]}
        return {"fold": [fold[s] for s in samples]}
    return {
        f"split_{k}": ["train" if s in parts["train"] else "test" if s in parts["test"] else "" for s in samples]
        for k, parts in splits.items()
    }


def _read(path: Path, samples: dict[str, Split]) -> tuple[str, ...]:
    raw = read_csv(path, required=COLUMNS)
    found: list[str] = []
    for sample, *paths in zip(*(raw[c] for c in COLUMNS), strict=True):
        for p in (sample, *paths):
            if not p or p.startswith("/") or ".." in PurePosixPath(p).parts or "\\" in p:
                raise DataError(f"{path}: {p!r} is not a name or a path that stays inside the task. Download it again.")
        split = Split(*paths)
        if sample in found:
            raise DataError(f"{path}: sample {sample} stands twice. Remove one row.")
        if samples.setdefault(sample, split) != split:
            raise DataError(f"{path}: sample {sample} has other files than in another split file. Correct one of them.")
        found.append(sample)
    if not found:
        raise DataError(f"{path} names no sample. Download it again.")
    return tuple(found)
