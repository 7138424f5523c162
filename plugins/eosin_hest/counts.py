"""Raw gene counts of spots from an AnnData file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eosin.errors import DataError, MissingError


def read_counts(path: Path, barcodes: Sequence[str], genes: Sequence[str]) -> np.ndarray:
    """(n, g) float64: the rows of `X` called `barcodes`, its columns called `genes`, both in the order asked.

    Other rows and columns may be there, in any order.

    Raises:
        DataError: the file is damaged; a barcode or gene is missing, or stands twice.
        MissingError: anndata is not installed.
    """
    data = open_h5ad(path)
    if data.X is None:
        raise DataError(f"{path} has no X, which should hold raw counts. Download it again.")
    rows = _places(path, "barcode", data.obs_names, barcodes)
    columns = _places(path, "gene", data.var_names, genes)
    found = data.X[rows][:, columns]
    found = found.toarray() if hasattr(found, "toarray") else np.asarray(found)
    return found.astype(np.float64)


def open_h5ad(path: Path) -> Any:
    """The AnnData object of a file."""
    import warnings

    try:
        import anndata
    except ImportError as error:
        raise MissingError(f"Gene counts in .h5ad files need anndata ({error}): pip install 'eosin[hest]'") from error
    if not path.is_file():
        raise DataError(f"{path} is missing. Download it again, with all of its task.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that stand twice matter only where they are asked for
        try:
            return anndata.read_h5ad(path)
        except Exception as error:  # h5py, anndata and pandas each have errors of their own
            raise DataError(f"{path} cannot be read as AnnData ({error}). Download it again.") from error


def about(counts: np.ndarray) -> str:
    """What is odd about counts that should be raw; "" when they look raw."""
    if (counts < 0).any():
        return "negative values"
    if (counts != np.round(counts)).any():
        return "values that are not whole"
    return ""


def _places(path: Path, what: str, names: Any, wanted: Sequence[str]) -> list[int]:
    """Where each wanted name stands; DataError naming those that are absent or stand twice."""
    at: dict[str, int] = {}
    twice = set()
    for i, name in enumerate(names):
        name = name.decode() if isinstance(name, bytes) else str(name)
        if name in at:
            twice.add(name)
        at[name] = i
    absent = [w for w in wanted if w not in at]
    if absent:
        raise DataError(
            f"{path.stem}: {what} {absent[0]} is not in {path}"
            f"{f', and {len(absent) - 1} more are not' if len(absent) > 1 else ''}. "
            "Patches and counts belong to different versions: download the task again."
        )
    double = [w for w in wanted if w in twice]
    if double:
        raise DataError(
            f"{path.stem}: {what} {double[0]} stands twice in {path}, so its counts are not known. Correct it."
        )
    return [at[w] for w in wanted]
