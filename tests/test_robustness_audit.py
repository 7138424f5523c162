"""The centre audit: it finds the centre where there is one, and the gap where the label leans on it."""

import numpy as np
import pytest

from eosin import Embeddings
from eosin.errors import DataError, UsageError
from eosin.plugins import Catalogue


def audit(emb, **options):
    return Catalogue().protocol("centre-audit@1").score(emb, **options)


def made(seed=0, of_centre=1.0, tied=0.0, of_patient=0.0, n=360, centres=4, patients=5, d=16, of_class=1.0):
    """Two classes in four centres; `tied`: the class looks otherwise in each centre."""
    rng = np.random.default_rng(seed)
    y, centre = np.arange(n) % 2, np.arange(n) // 2 % centres
    patient = centre * patients + np.arange(n) // (2 * centres) % patients
    X = of_class * rng.standard_normal((2, d))[y] + of_centre * rng.standard_normal((centres, d))[centre]
    X += (
        tied * rng.standard_normal((centres, 2, d))[centre, y]
        + of_patient * rng.standard_normal((centres * patients, d))[patient]
    )
    X += rng.standard_normal((n, d))
    text = lambda v: np.array([f"c{i}" for i in v])  # noqa: E731
    return Embeddings(
        X=X.astype(np.float32), id=text(range(n)), y=y, centre=text(centre), group=text(patient), classes=("a", "b")
    )


def test_extremes():
    loud, silent = audit(made(of_centre=6)), audit(made(of_centre=0))
    for probe in ("centre_linear", "centre_knn"):
        assert np.mean(loud.metrics[probe]) == pytest.approx(1, abs=0.01)
        assert np.mean(silent.metrics[probe]) == pytest.approx(0.25, abs=0.08)
    assert loud.details["centre chance"] == 0.25 and loud.details["centre majority"] == 0.25
    assert abs(silent.metrics["gap"]) < 0.05
    assert (loud.details["recall"] > 0.98).all() and loud.details["class x centre"].tolist() == [[45] * 4] * 2


def test_it_rises_with_the_centre():
    found = [np.mean(audit(made(of_centre=s)).metrics["centre_linear"]) for s in (0, 0.3, 0.8, 3)]
    assert found == sorted(found) and found[-1] > found[0] + 0.3


def test_the_gap_is_of_centres_not_of_patients():
    tied = audit(made(tied=1.5, of_class=0.3))
    assert np.mean(tied.metrics["label_random"]) > 0.8 and tied.metrics["gap"] > 0.15
    assert np.mean(tied.metrics["label_site"]) < np.mean(tied.metrics["label_random"]) - 0.15
    assert len(tied.metrics["label_left_out"]) == 4 and len(tied.metrics["label_site"]) == 4
    patients = audit(made(of_centre=0, of_patient=3, of_class=3))
    assert abs(patients.metrics["gap"]) < 0.1


def test_no_patient_is_on_both_sides():
    """Embeddings that know the patient and nothing else of the centre do not give the centre away."""
    found = audit(made(of_centre=0, of_patient=6, of_class=0))
    assert np.mean(found.metrics["centre_linear"]) < 0.5


def test_centres_of_one_patient_and_unlike_classes():
    emb = made(n=360)
    single = emb.group.copy()
    single[emb.centre == "c3"] = "alone"
    keep = ~((emb.centre == "c2") & (emb.y == 0))  # one class in c2
    from dataclasses import replace

    found = audit(replace(emb, group=single)[keep])
    assert any("not probed for: c3" in n for n in found.notes) and found.details["centre chance"] == pytest.approx(
        1 / 3
    )
    assert np.isnan(found.details["recall"][3]) and np.isfinite(found.details["left out"]).all()
    assert found.details["class x centre"][0, 2] == 0


def test_without_labels_or_patients():
    from dataclasses import replace

    emb = made(of_centre=3)
    bare = audit(replace(emb, y=None, group=None, classes=()))
    assert np.mean(bare.metrics["centre_linear"]) > 0.9 and np.isnan(bare.metrics["gap"])
    assert any("neither patients nor slides" in n for n in bare.notes)
    for centre, text in ((None, "no centres"), (np.full(len(emb), "c0"), "one centre only")):
        with pytest.raises(DataError, match=text):
            audit(replace(emb, centre=centre))
    with pytest.raises(UsageError, match="folds >= 2"):
        audit(emb, folds=1)
