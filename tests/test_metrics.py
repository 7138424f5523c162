"""The sums: against the golden cases, against scikit-learn or the definition written out, and at the edges."""

import json

import numpy as np
import pytest

from eosin import metrics
from eosin.errors import DataError


def case(folder):
    return np.load(folder / "input.npz"), json.loads((folder / "expected.json").read_text())


# ---- accuracy, balanced accuracy, AUROC


def test_golden_eva_metrics(shared):
    torch = pytest.importorskip("torch")
    given, expected = case(shared("golden", "eva-metrics-01"))
    out = expected["outputs"]
    for name in ("mc4_plain", "mc4_absent_in_target", "mc4_absent_in_target_and_pred", "mc4_tied_logits", "mc9_plain"):
        logits, y = given[f"{name}_logits"], given[f"{name}_target"]
        p = logits.argmax(1)
        macro = metrics.balanced_accuracy(y, p, classes=np.union1d(y, p))
        assert macro == pytest.approx(out[f"MulticlassAccuracy_macro_{name}"], abs=1e-6)
        # the peer counts the area of a class without positives as 0, and keeps it in the mean
        probability = torch.softmax(torch.from_numpy(logits), 1)  # its rounding makes ties: the peer's own function
        area = metrics.auroc(y, probability) * len(np.unique(y)) / logits.shape[1]
        assert area == pytest.approx(out[f"collection_{name}"]["MulticlassAUROC"], abs=1e-6)
    for pair in ("bin_logits|bin_target", "bin_logits|bin_target_all0", "bin_logits|bin_target_all1"):
        score, y = (given[name] for name in pair.split("|"))
        both = metrics.balanced_accuracy(y, score > 0, classes=(0, 1))
        assert both == pytest.approx(out["BinaryBalancedAccuracy"][pair], abs=1e-6)
    binary = out["binary_collection_on_bin_logits"]
    assert metrics.auroc(given["bin_target"], given["bin_logits"]) == pytest.approx(binary["BinaryAUROC"], abs=1e-6)
    assert metrics.accuracy(given["bin_target"], given["bin_logits"] > 0) == pytest.approx(
        binary["BinaryAccuracy"], abs=1e-6
    )


def test_balanced_accuracy_is_over_the_classes_present():
    assert metrics.balanced_accuracy([0, 0, 0, 2], [0, 0, 1, 2]) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.balanced_accuracy(["a", "b", "b"], ["a", "a", "b"]) == 0.75
    assert metrics.balanced_accuracy([0, 0], [0, 1], classes=(0, 1)) == 0.25


@pytest.mark.parametrize("levels", [3, 10, 10**9])
def test_auroc_is_exact_with_ties(levels):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(levels)
    y, score = rng.integers(0, 2, 501), rng.integers(0, levels, 501) / 7
    assert metrics.auroc(y, score) == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    assert metrics.auroc(y, np.column_stack([-score, score])) == metrics.auroc(y, score)
    assert metrics.auroc(np.where(y, "tumour", "normal"), score) == metrics.auroc(y, score)
    y, score = rng.integers(0, 4, 300), rng.integers(1, levels + 1, (300, 4)).astype(float)
    score /= score.sum(1, keepdims=True)
    expected = roc_auc_score(y, score, multi_class="ovr", average="macro")
    assert metrics.auroc(y, score) == pytest.approx(expected, abs=1e-12)
    assert metrics.auroc(np.array(["w", "x", "y", "z"])[y], score) == metrics.auroc(y, score)


def test_auroc_at_the_edges():
    assert np.isnan(metrics.auroc([1, 1], [0.2, 0.3]))
    assert metrics.auroc([0, 1, 1], [-np.inf, 0, np.inf]) == 1
    assert metrics.auroc([0, 0, 2], np.eye(3)) == (0.75 + 1) / 2  # class 1 is not in y
    with pytest.raises(DataError, match="3 classes and score one column"):
        metrics.auroc([0, 1, 2], [0.1, 0.2, 0.3])
    with pytest.raises(DataError, match="labels as column numbers"):
        metrics.auroc(["a", "b", "a"], np.ones((3, 3)))


def test_rows_with_nan_are_named():
    score = np.ones(40)
    score[[3, 17]] = np.nan
    with pytest.raises(DataError, match="score has NaN in rows 3, 17"):
        metrics.auroc(np.arange(40) % 2, score)
    with pytest.raises(DataError, match="P has NaN or Inf in rows 0, 1, .* and 30 more"):
        metrics.pearson(np.zeros((40, 2)), np.full((40, 2), np.inf))
    for wrong in ([], [0, 1, 2], [[0, 1]]):
        with pytest.raises(DataError):
            metrics.accuracy([0, 1], wrong)


def test_torch_tensors_are_taken():
    torch = pytest.importorskip("torch")
    y, score = torch.tensor([0, 1, 1, 0]), torch.tensor([0.1, 0.9, 0.4, 0.5], requires_grad=True)
    assert metrics.accuracy(y, torch.tensor([0, 1, 0, 0])) == 0.75
    assert metrics.auroc(y, score) == metrics.auroc(y.numpy(), score.detach().numpy())
    X = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    assert metrics.cka(X, 2 * X) == pytest.approx(1)
    assert metrics.plism_pair(X.to(torch.bfloat16), X.to(torch.bfloat16))["top1"] == 1


# ---- Pearson, Dice, performance drop


def test_pearson_by_column():
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((50, 4)) + 1e6
    P = Y + rng.standard_normal((50, 4))
    expected = [np.corrcoef(Y[:, j], P[:, j])[0, 1] for j in range(4)]
    assert metrics.pearson(Y, P) == pytest.approx(expected, abs=1e-9)
    assert metrics.pearson(Y[:, 0], 3 - Y[:, 0]) == pytest.approx([-1])
    Y[:, 1], P[:, 2] = 0.1, 7
    assert np.isnan(metrics.pearson(Y, P)).tolist() == [False, True, True, False]


def test_golden_eva_dice(shared):
    given, expected = case(shared("golden", "eva-dice-01"))
    settings = {
        "consep": ("target", "pred", {"num_classes": 5}),
        "not_ignore_empty": ("target", "pred", {"num_classes": 5, "ignore_empty": False}),
        "with_background": ("target", "pred", {"num_classes": 5, "include_background": True}),
        "monusac_ignore5": ("target_with_5", "pred", {"num_classes": 6, "ignore_index": 5}),
        "monusac_ignore5_pred_has_5": ("target_with_5", "pred_with_5", {"num_classes": 6, "ignore_index": 5}),
    }
    for name, (target, prediction, options) in settings.items():
        target, prediction, want = given[target], given[prediction], expected["outputs"][name]
        assert metrics.dice(target, prediction, **options) == pytest.approx(want["mean"], abs=1e-6), name
        if "reduction_none_per_class" in want:
            per_class = metrics.dice(target, prediction, reduction="class", **options)
            assert per_class == pytest.approx(want["reduction_none_per_class"], abs=1e-6), name
        for i in range(len(target)):
            alone = metrics.dice(target[i : i + 1], prediction[i : i + 1], **options)
            assert alone == pytest.approx(want[f"image_{i}"], abs=1e-6), (name, i)


def test_dice_of_one_small_map():
    target, prediction = np.array([[0, 1, 1, 2, 5]]), np.array([[1, 1, 0, 2, 2]])
    both = metrics.dice(target, prediction, 6, ignore_index=5)
    assert both == pytest.approx((2 * 1 / 4 + 2 * 1 / 3) / 2)  # the ignored pixel counts against the predicted class 2
    assert metrics.dice(target, prediction, 6, ignore_index=5, ignored_by="target") == pytest.approx((0.5 + 1) / 2)
    images = metrics.dice(np.array([[0, 1], [0, 0]]), np.array([[1, 1], [0, 0]]), 2, reduction="image")
    assert images[0] == pytest.approx(2 / 3) and np.isnan(images[1])
    with pytest.raises(DataError, match="Image 0 has a label outside 0 … 4"):
        metrics.dice(target, prediction, 5)
    with pytest.raises(DataError, match="docstring"):
        metrics.dice(target, prediction, 6, reduction="sum")


def test_golden_performance_drop(shared):
    given, expected = case(shared("golden", "apd-01"))
    raw, summary = expected["raw"], expected["summary"]
    assert metrics.performance_drop(raw["ID_test_accuracies"]) == pytest.approx(summary["apd_id"], abs=1e-9)
    assert metrics.performance_drop(raw["OOD_test_accuracies"]) == pytest.approx(summary["apd_ood"], abs=1e-9)
    from sklearn.linear_model import LogisticRegression

    rows, x = np.load(shared("golden", "apd-01", "expected_indices.npz")), given["x"].astype(float)
    for iteration, split in ((0, 0), (1, 3), (3, 7)):
        train, test = rows[f"train_{iteration}_{split}"], rows[f"test_id_{iteration}_{split}"]
        C = expected["chosen_C"][iteration][split]
        model = LogisticRegression(C=C, max_iter=10000).fit(x[train], given["bio"][train])
        got = metrics.balanced_accuracy(given["bio"][test], model.predict(x[test]))
        assert got == pytest.approx(raw["ID_test_accuracies"][split][iteration], abs=1 / len(test))


def test_performance_drop_at_the_edges():
    assert metrics.performance_drop([[0.8, 1.0], [0.4, 1.0]]) == pytest.approx(-0.25)
    assert np.isnan(metrics.performance_drop([[0, 1], [1, 1]]))
    with pytest.raises(DataError, match="split 0 is balanced"):
        metrics.performance_drop([[0.5, 0.6]])
