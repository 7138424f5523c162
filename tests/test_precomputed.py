"""Embeddings made elsewhere: what is a vector and what is not, in csv, npz and by id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eosin.card import recorded
from eosin.errors import DataError
from eosin.precomputed import _in_order, read_arrays
from eosin.score import from_file


def table(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_long_path_is_a_name_all_the_same(tmp_path):
    short, long = (recorded(f"precomputed:/{'a' * n}") for n in (100, 300))
    assert short == f"precomputed-{'a' * 100}" and len(long) == 200 and long != recorded(f"precomputed:/{'a' * 301}")


def test_an_id_is_of_one_row(tmp_path):
    with pytest.raises(DataError, match="2 rows and 1 different ids; a stands 2 times.*`group`"):
        from_file(table(tmp_path / "e.csv", "id,f0,f1", "a,1,2", "a,3,4"))
    with pytest.raises(DataError, match="has no rows"):
        from_file(table(tmp_path / "n.csv", "id,f0,f1"))


@pytest.mark.parametrize("header", ["id,0,1,y", "id,f0,f1,y", "y,id,dim_1,dim_2", ",id,f0,f1,label", "id,age,f0,f1,y", "id,0,1,f0,f1,y"])  # fmt: skip
def test_a_label_an_index_or_an_age_is_no_part_of_a_vector(tmp_path, header):
    names = header.split(",")
    known = {"id": "a", "y": "1", "label": "1", "": "7", "age": "50", "f0": "1", "f1": "2", "0": "1", "1": "2", "dim_1": "1", "dim_2": "2"}  # fmt: skip
    path = table(
        tmp_path / "e.csv", header, ",".join(known[n] for n in names), ",".join({**known, "id": "b"}[n] for n in names)
    )
    assert read_arrays(path)["X"].tolist() == [[1, 2], [1, 2]]
    emb = from_file(path)
    assert emb.y is not None and len(emb.classes) == 1


@pytest.mark.parametrize(
    ("header", "said"),
    [("id,age,height", "no columns are the vector"), ("id,f0,f2", "without a gap"), ("id,f0,f1,g0,g1", "both f and g may be")],
)  # fmt: skip
def test_columns_that_may_be_anything_are_refused(tmp_path, header, said):
    with pytest.raises(DataError, match=f"e.csv: .*{said}"):
        read_arrays(table(tmp_path / "e.csv", header, ",".join("1" * len(header.split(",")))))


def test_ids_that_stand_twice_or_are_others(tmp_path):
    X = np.eye(3, dtype=np.float32)
    with pytest.raises(DataError, match="hold 1 ids more than once, such as a. Keep one row each"):
        _in_order(np.array(["a", "a", "b"]), X, np.array(["a", "b"]), "d")
    with pytest.raises(DataError, match=r"lack 2 of 2 tiles, such as t/a.png; they have ids such as a"):
        _in_order(np.array(["a", "b", "c"]), X, np.array(["t/a.png", "t/b.png"]), "d")


def test_text_saved_as_objects_and_labels_that_are_not_numbers(tmp_path):
    X = np.eye(3, dtype=np.float32)
    np.savez(tmp_path / "o.npz", X=X, y=np.array(["a", "b", "a"], object))
    with pytest.raises(DataError, match=r"y.npy holds Python objects: save text as array.astype\(str\)"):
        from_file(tmp_path / "o.npz")
    np.savez(tmp_path / "n.npz", X=X, y=np.array([0, 1, np.nan]))
    with pytest.raises(DataError, match="y is NaN in 1 of 3 rows. Leave rows without a label out"):
        from_file(tmp_path / "n.npz")
    np.savez(tmp_path / "h.npz", X=X, y=np.array([0.5, 1, np.nan]))
    assert from_file(tmp_path / "h.npz").target is not None
