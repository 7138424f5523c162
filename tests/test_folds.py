"""Folds: equal to scikit-learn's where it has them, no group on both sides, no class forgotten."""

import numpy as np
import pytest

from eosin import folds
from eosin.errors import DataError, UsageError


@pytest.mark.parametrize("n, seed", [(2, 0), (5, 3), (10, 0)])
@pytest.mark.parametrize("labels", [[0, 1], [3, 0, 7, 1], ["tumour", "benign", "normal"]])
def test_kfold_is_scikit_learns(labels, n, seed):
    from sklearn.model_selection import StratifiedKFold

    rng = np.random.default_rng(seed)
    y = np.repeat(labels, [10 + 13 * i for i in range(len(labels))])
    y = rng.permutation(y)
    fold = folds.kfold(y, n, seed)
    theirs = StratifiedKFold(n, shuffle=True, random_state=seed).split(np.zeros(len(y)), y)
    for k, (_, test) in enumerate(theirs):
        assert np.flatnonzero(fold == k).tolist() == test.tolist()


def test_kfold_refuses_more_folds_than_a_class_has_rows():
    with pytest.raises(DataError, match="10 folds were asked for, and class rare has 3 rows.*at most 3 folds"):
        folds.kfold(["common"] * 50 + ["rare"] * 3)
    with pytest.raises(DataError, match="class rare has 1 row: .*Give the class more rows"):
        folds.kfold(["common"] * 50 + ["rare"], 2)
    with pytest.raises(UsageError, match="at least two"):
        folds.kfold([0, 1] * 9, 1)


def patients(seed=0, n=60, classes=3):
    """Rows of patients of uneven size; a patient's rows are mostly, not all, of one class."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n), rng.integers(3, 40, n))
    of = rng.integers(0, classes, n)[group]
    y = np.where(rng.random(len(group)) < 0.1, rng.integers(0, classes, len(group)), of)
    return y, np.array([f"P{g:03d}" for g in group])


@pytest.mark.parametrize("seed", range(4))
def test_grouped_keeps_patients_together_and_classes_even(seed):
    y, group = patients(seed)
    fold = folds.grouped(y, group, 5, seed)
    for patient in np.unique(group):
        assert len(np.unique(fold[group == patient])) == 1
    share = np.array([[(y[fold == k] == c).sum() / (y == c).sum() for c in range(3)] for k in range(5)])
    assert np.abs(share - 0.2).max() < 0.05


def test_grouped_fills_every_fold_with_a_scarce_class():
    """One patient holds nearly all rows of class 1, two others a row each: the three must part, whatever evens out."""
    y, group = patients(1, classes=1)
    y, group = np.append(y, [1] * 52), np.append(group, ["A"] * 50 + ["B", "C"])
    y, group = np.append(y, [0] * 60), np.append(group, ["B"] * 30 + ["C"] * 30)
    for seed in range(20):
        fold = folds.grouped(y, group, 3, seed)
        assert set(fold[y == 1]) == {0, 1, 2}


def test_grouped_says_how_many_folds_are_possible():
    y, group = (
        np.array([0] * 40 + [1] * 30),
        np.array([f"a{i % 8}" for i in range(40)] + [f"b{i % 3}" for i in range(30)]),
    )
    assert folds.most(y, group) == 3
    with pytest.raises(DataError, match="class 1 has 3 groups.*at most 3 folds"):
        folds.grouped(y, group, 10)
    assert set(folds.grouped(y, group, 3)) == {0, 1, 2}


def test_seeds_draw_other_folds_and_repeat_themselves():
    y, group = patients()
    for draw in (
        lambda seed: folds.kfold(y, 5, seed),
        lambda seed: folds.grouped(y, group, 5, seed),
        lambda seed: folds.holdout(y, seed=seed),
        lambda seed: folds.holdout(y, seed=seed, group=group),
    ):
        assert (draw(1) == draw(1)).all()
        assert (draw(1) != draw(2)).mean() > 0.1


def test_holdout_shares_every_class():
    y = np.repeat([0, 1, 2], [1000, 100, 10])
    part = folds.holdout(y)
    for c, size in enumerate((1000, 100, 10)):
        got = [(part[y == c] == name).sum() for name in folds.PARTS]
        assert got == [0.6 * size, 0.2 * size, 0.2 * size]
    assert sorted(folds.holdout([0, 0, 0, 1, 1, 1])) == ["test"] * 2 + ["train"] * 2 + ["val"] * 2
    assert set(folds.holdout([0, 0, 0, 1, 1], (0.75, 0.25))) == {"train", "val"}
    with pytest.raises(DataError, match="Class 1 has 2 rows for the 3 parts"):
        folds.holdout([0] * 9 + [1] * 2)


def test_holdout_by_patient():
    y, group = patients(5, n=80)
    part = folds.holdout(y, seed=3, group=group)
    for patient in np.unique(group):
        assert len(np.unique(part[group == patient])) == 1
    share = np.array([[(part[y == c] == name).mean() for name in folds.PARTS] for c in range(3)])
    assert np.abs(share - [0.6, 0.2, 0.2]).max() < 0.05


def test_holdout_trains_on_a_class_of_one_patient():
    y, group = patients(2, classes=2)
    y, group = np.append(y, [2] * 9), np.append(group, ["only"] * 9)
    assert set(folds.holdout(y, group=group)[y == 2]) == {"train"}
    with pytest.raises(DataError, match="2 groups cannot fill 3 parts"):
        folds.holdout([0, 0, 1, 1], group=["a", "b", "a", "b"])


def test_given_folds_are_checked():
    assert folds.given([0.0, 1.0, -1.0]).tolist() == [0, 1, -1]
    for bad in ([0, 0, 0], [-1, -1], [-2, -1], [0.5, 1], ["a", "b"]):
        with pytest.raises(DataError, match="fold"):
            folds.given(bad)


def test_one_group_a_row():
    with pytest.raises(DataError, match="group has shape"):
        folds.grouped([0, 1, 0, 1], ["a", "b"], 2)


def test_groups_on_both_sides_are_named():
    split = np.array(["train", "val", "test", "test", "train", "test"])
    group = np.array(["a", "b", "b", "c", "", ""])
    assert folds.straddling(group, split).startswith(
        "1 groups (patients) have rows both in train or val and in test, such as b"
    )
    assert folds.straddling(np.array(list("aabbcc")), np.repeat(["train", "val", "test"], 2)) == ""
    assert folds.straddling(None, split) == folds.straddling(group, None) == ""


def test_words_that_are_no_part_are_named():
    assert folds.unheard_of(np.array(["train", "val", "test", ""])) == folds.unheard_of(None) == ""
    said = folds.unheard_of(np.array(["train", "trian", "test", "trian"]))
    assert (
        said
        == "split says 'trian' (2 rows), which is none of train, val, test: where this split is used, these rows neither train nor are tested."
    )
