"""The rows of an address as one file for `bench score`: vectors, labels and the columns of the dataset's table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .cards import ModelCard
from .errors import DataError, EosinError, MissingError, StoreError
from .extractor import parts_of
from .index import Index, kept
from .plan import Planner
from .pool import spread
from .store import Address, given_readouts, read_joined, stored

# columns that score reads as something else, or that only mean something beside the images
OWN = {"id", "label", "source", "mask", "image", "mean", "std", "classes", "X", "X2", "y", "target"}


def rows_of(folder: Path, planner: Planner, readout: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """The rows of an address as arrays that `bench score` reads, and what a reader must know.

    Raises:
        MissingError: some of its tiles are not embedded. StoreError: damaged parts. DataError: no row is left, or the
            table has other rows.
    """
    address = stored(folder)
    if address is None or address.missing():
        lost = f"{address.rows_of(address.missing())} of {address.rows} tiles lack" if address else "no sound part"
        raise MissingError(f"{folder} is not complete: {lost}. First bench store verify, then bench embed.")
    ids, broken, X, _ = read_joined(address, parts_of(readout, _card(address), given_readouts(address)))
    name, _, tiles = folder.name.split("+")[0].rpartition("@")
    index, notes = _index(planner, name, tiles)
    keep = ~broken
    if broken.any():
        notes.append(f"{int(broken.sum())} tiles could not be read and are left out.")
    if index is None:
        return {"id": ids[keep], "X": X[keep]}, notes
    if not np.array_equal(ids, index.table["id"]):
        raise DataError(f"{folder} holds other tiles than {index.path}. Remove that folder, and embed again.")
    table = spread(index)
    if table.known("label") is not None:
        keep &= table["label"] >= 0
    if not keep.any():
        raise DataError(f"{folder}: no row is left: all are broken or without a label. Look at {index.path}.")
    columns = {n: v for n in table.columns if n not in OWN and (v := table.known(n)) is not None}
    arrays = {"id": ids[keep], "X": X[keep], **{n: v[keep] for n, v in columns.items()}}
    if table.known("label") is not None:
        arrays |= {"y": table["label"][keep], "classes": np.array(table.classes)}
    if table.target is not None:
        arrays["target"] = table.target[keep]
    return arrays, notes


def _card(address: Address) -> ModelCard:
    try:
        return ModelCard(**address.about["model"])
    except (KeyError, TypeError, EosinError) as error:
        raise StoreError(
            f"{address.folder} does not say which model it is of ({error}). It was not written by this harness: remove it."
        ) from error


def _index(planner: Planner, name: str, tiles: str) -> tuple[Index | None, list[str]]:
    """The index of these tiles as the data are now; where they are gone, the kept one, if there is one only."""
    why = f"no card of {name}"
    if name in planner.catalogue.datasets.things:
        try:
            found = planner.index(name)
            if found.tiles == tiles:
                return found, []
            why = f"the tiles of {name} have changed since"
        except EosinError as error:
            why = str(error).partition(".")[0]
    old = {index.rows: index for index in kept(planner.places.indexes, name) if index.tiles == tiles}
    if len(old) == 1:
        (found,) = old.values()
        return found, [f"Labels are those of {found.path}, compared with nothing on disk: {why}."]
    if old:
        places = ", ".join(str(index.path) for index in old.values())
        raise DataError(f"{name} was indexed with different labels ({places}), and now {why}. Name its --data.")
    return None, [
        f"There is no index of these tiles: no labels ({why}). Make it and export again: bench data index {name}"
    ]
