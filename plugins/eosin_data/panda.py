"""PANDA: prostate biopsies with ISUP grades 0 to 5; labels without the noisy ones, split as in eva."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import eosin
from eosin.table import numbers, read_csv

from .official import Tree, options_of
from .wsi import TILING, tiles_of_slides

SLIDE = re.compile(r"[0-9a-f]{32}\.tiff")
CLASSES = tuple(f"ISUP {grade}" for grade in range(6))
IMAGES, LABELS, KAGGLE = "train_images", "train_with_noisy_labels.csv", "train.csv"
NOISE = "noise_ratio_10"  # 0: among the tenth of the slides whose label is least believed; eva leaves them out
OFFICIAL, MD5 = 10_616, "5e4bfc78bda9603d2e2faf3ed4b21dfa"
SHARES = {"small": (0.1, 0.05, 0.05), "full": (0.7, 0.15, 0.15)}
SEED = 42
WHERE = f"the train.csv of github.com/analokmaus/kaggle-panda-challenge-public, kept as {LABELS}"


class Panda(eosin.Dataset):
    """`train_images/<id>.tiff` with `isup_grade` and `noise_ratio_10` from `train_with_noisy_labels.csv`.

    Option `part`: small (eva's PANDASmall) or full (6,686, 1,430 and 1,439 slides). eva's pages give 955, 477 and 477 for
    small, which are a tenth and a twentieth of all; its draw takes whole slides of each class, which makes 952, 475 and 475.
    The split is drawn from all rows of the table, so that a partial download has eva's. Patients are not published.
    """

    kind = "panda"
    on_slides = True

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        options = options_of(self, {**TILING, "part": tuple(SHARES)})
        top = tree.find(lambda f: (f / IMAGES).is_dir())
        files = {}
        for file in tree.files(top / IMAGES, (".tiff", ".tif")):
            if SLIDE.fullmatch(file.name) is None:
                raise tree.odd(file, "<32 hexadecimal digits>.tiff")
            files[file.stem] = file
        path = _table(tree, top)
        tree.compare_md5(path, MD5)
        ids, grade, clean, provider = _labels(tree, path)
        foreign = sorted(set(files) - set(ids))
        if foreign:
            raise tree.fail(
                f"{path} has no row of {files[foreign[0]].name} ({len(foreign)} in all). Is it the whole table?"
            )
        tree.compare(len(files), OFFICIAL, "slides")
        tree.note(int((~clean).sum()), "slides have noisy labels and were left out, as in eva")
        tree.warnings.append("patients are not published: slides of one may be on both sides of a split")
        rows, absent, kept = [], 0, np.flatnonzero(clean)
        part = np.full(len(ids), "", "U5")
        for name, drawn in stratified(grade[kept], SHARES[options["part"]], SEED).items():
            part[kept[drawn]] = name
        for i in np.flatnonzero(part != "").tolist():
            absent += ids[i] not in files
            if ids[i] in files:
                about = {"id": ids[i], "source": tree.relative(files[ids[i]]), "label": int(grade[i])}
                rows.append({**about, "split": str(part[i]), "slide": ids[i], "centre": provider[i]})
        tree.note(absent, "slides of the split are not there")
        return tree.table(rows, CLASSES)

    def tiles(self, root: Path, items: eosin.Table) -> eosin.Table:
        return tiles_of_slides(self, root, items)


def stratified(y: np.ndarray, shares: Sequence[float], seed: int) -> dict[str, np.ndarray]:
    """Row numbers of train, val and test in the order in which eva draws them: class by class, each class shuffled.

    Each part gets a floor(share) of a class and at least one row; where the shares make exactly 1 the last gets the rest.
    Source: kaiko-ai/eva, eva/core/data/splitting/stratified.py.

    Args:
        y: (n,) labels. shares: of train, val and test; 0 for none.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    names = [name for name, share in zip(drawn, shares, strict=True) if share]
    for c in np.unique(y):
        rows = np.flatnonzero(y == c)
        rng.shuffle(rows)
        start = 0
        for name, share in zip(drawn, shares, strict=True):
            size = max(1, int(share * len(rows))) if share else 0
            end = len(rows) if name == names[-1] and sum(shares) == 1 else start + size
            drawn[name].append(rows[start:end])
            start = end
    return {name: np.concatenate(parts) for name, parts in drawn.items()}


def _table(tree: Tree, top: Path) -> Path:
    """The table of labels with their noise; Kaggle's own, which does not have it, is refused."""
    folders = list(dict.fromkeys((tree.root, top.parent, top)))
    for path in [f / name for name in (LABELS, KAGGLE) for f in folders]:
        if path.is_file() and NOISE in read_csv(tree.watch(path)):
            return path
    has = f" Kaggle's own {KAGGLE} does not do: it lacks {NOISE}, by which eva leaves a tenth out."
    here = any((f / KAGGLE).is_file() for f in folders)
    raise tree.fail(f"{LABELS} is missing in {tree.root}.{has if here else ''} Put it there: {WHERE}.")


def _labels(tree: Tree, path: Path) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """Ids in the order of their files, grade, whether the label is believed, and who gave the slide."""
    raw = read_csv(path, required=("image_id", "isup_grade", NOISE))
    order = np.argsort(raw["image_id"], kind="stable").tolist()
    ids = [raw["image_id"][i] for i in order]
    twice = [a for a, b in zip(ids, ids[1:], strict=False) if a == b]
    if twice:
        raise tree.fail(f"{path}: {twice[0]} stands twice. Download it again.")
    grade = numbers(path, "isup_grade", raw["isup_grade"])[order]
    if not np.isin(grade, range(6)).all():
        wrong = ids[int(np.flatnonzero(~np.isin(grade, range(6)))[0])]
        raise tree.fail(f"{path}: isup_grade of {wrong} is not 0 to 5. Download it again.")
    clean = numbers(path, NOISE, raw[NOISE])[order] != 0
    provider = raw.get("data_provider", [""] * len(ids))
    return ids, grade.astype(np.int64), clean, [provider[i] for i in order]
