"""HEST-Benchmark's data: spots with a patch each and the counts of 50 genes, a folder a task, folds in split files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import eosin
from eosin.dataset import folders_below, names_below
from eosin.errors import CardError, DataError

from .counts import about, read_counts
from .splits import Split, columns_of, read_splits

FOLDERS = {
    "idc": "IDC", "prad": "PRAD", "paad": "PAAD", "skcm": "SKCM", "coad": "COAD", "read": "READ", "ccrcc": "CCRCC",
    "hcc": "HCC", "luad": "LUNG", "lymph-idc": "LYMPH_IDC",
}  # fmt: skip
"""Task -> folder. HCC is on disk and on no board."""
TASKS = {folder: task for task, folder in FOLDERS.items()}
GENES = "var_50genes.json"
MPP = 0.5
# Patients that HEST's metadata tell apart; elsewhere a sample counts as a patient.
PATIENTS = {
    **{f"MEND{n}": "PRAD patient 2" for n in range(139, 154)},
    **{f"MEND{n}": "PRAD patient 1" for n in (154, *range(156, 163))},
    **{"ZEN36": "READ patient 7", "ZEN40": "READ patient 7", "ZEN48": "READ patient 1", "ZEN49": "READ patient 1"},
}


class HestBench(eosin.Dataset):
    """One task of MahmoodLab/hest-bench (option `task`, or a folder that is one), or all tasks below a folder.

    An item is a spot: `<sample>/<barcode>`, its patch a row of `patches/<sample>.h5`, its `target` log1p of the raw
    counts of the genes of `var_50genes.json`, matched by barcode. `fold` is where its sample is tested; where a sample is
    tested twice or never, or training leaves one out, columns `split_<k>` say what each pair of split files says.
    Of several tasks at once there is a column `task` and no target: their genes differ.
    """

    kind = "hest"

    def locate(self, data: Path) -> Path:
        """The card's `root`, else <data>/hest/<FOLDER>, else <data>/<name>."""
        if self.card.root:
            return super().locate(data)
        task = self._task()
        places = [data / self.name]
        if task:
            places = [data / top / FOLDERS[task] for top in ("hest", "hest-bench")] + places
        for place in places:
            if place.exists():
                return place
        raise self.missing(" or ".join(map(str, places)))

    def items(self, root: Path) -> eosin.Table:
        folders = self._folders(root)
        tasks = [_Task(self.name, root, folder) for folder in folders]
        several = len(tasks) > 1
        names = [f"{s}/{b}" for t in tasks for s, b in zip(t.columns["slide"], t.columns["barcode"], strict=True)]
        if several and len(set(names)) < len(names):  # a sample may serve two tasks
            names = [f"{t.task}/{i}" for t in tasks for i in t.ids()]
        kept = list(dict.fromkeys(n for t in tasks for n in t.columns))
        columns = {n: np.concatenate([t.column(n) for t in tasks]) for n in kept if n != "barcode"}
        same = len({t.genes for t in tasks}) == 1
        warnings = [w for t in tasks for w in t.warnings]
        if not same:
            warnings.append("genes differ between the tasks, so there is no target: benchmarks use one task each")
        table = eosin.Table(
            {"id": np.array(names), **columns},
            target=np.concatenate([t.target for t in tasks]) if same else None,
            target_names=tasks[0].genes if same else (),
            warnings=warnings,
            watched=tuple(dict.fromkeys(str(p) for t in tasks for p in t.watched)),
        )
        table.counts = {"samples": sum(len(t.samples) for t in tasks), "folds": sum(len(t.splits) for t in tasks)}
        if several:
            table.counts |= {t.task: len(t.target) for t in tasks}
        return table

    def _task(self) -> str:
        wrong = [k for k in self.card.options if k != "task"]
        task = str(self.card.options.get("task", ""))
        if wrong or (task and task not in FOLDERS):
            raise CardError(
                f"dataset {self.name}: its one option is task, of {', '.join(FOLDERS)}; not {wrong[0] if wrong else task}."
            )
        return task

    def _folders(self, root: Path) -> list[Path]:
        """The task folders that are meant: the root itself, the one of the card's task, or all below."""
        if not root.is_dir():
            raise DataError(f"{self.name}: {root} is a file. Name the folder that holds {GENES}, splits and patches.")
        if _is_task(root):
            return [root]
        found = [f for top in (root, *folders_below(root)) for f in folders_below(top) if _is_task(f)]
        task = self._task()
        if task:
            found = [f for f in found if f.name == FOLDERS[task]]
        if not found:
            wanted = f"{FOLDERS[task]}/" if task else "<TASK>/"
            raise DataError(
                f"{self.name}: {root} holds no task of hest-bench: {wanted} with {GENES}, splits/, patches/ and adata/. "
                f"`bench data where {self.name}` says how to get it."
            )
        names = [f.name for f in found]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise DataError(f"{self.name}: {root} holds {twice} more than once. Name the folder of one of them.")
        return found


class _Task:
    """One task folder, read."""

    def __init__(self, name: str, root: Path, folder: Path) -> None:
        self.name, self.root, self.folder = name, root, folder
        self.task = TASKS.get(folder.name, folder.name.lower())
        self.genes = _genes(folder / GENES)
        self.splits, self.samples, self.warnings = read_splits(folder)
        self.watched = [folder, folder / GENES, folder / "splits", *_files(folder)]
        if self.task == "coad" and any(s.startswith("ZEN") for s in self.samples):
            self.warnings.append(
                "this COAD (Visium) is older than August 2024; the board means the Xenium samples TENX111, 147-149"
            )
        rows, targets = [], []
        for sample, split in self.samples.items():
            patches = folder / split.patches
            barcodes = read_barcodes(patches)
            counts = read_counts(folder / split.counts, barcodes, self.genes)
            if odd := about(counts):
                self.warnings.append(f"{sample}: counts have {odd}, so they are not raw; the target is log1p of them")
            targets.append(self._log(sample, counts))
            self.watched.append(folder / split.counts)
            rows.append((sample, split, barcodes))
        self.target = np.concatenate(targets).astype(np.float32)
        self.columns = self._columns(rows)

    def _log(self, sample: str, counts: np.ndarray) -> np.ndarray:
        bad = ~(counts > -1) | np.isinf(counts)
        if bad.any():
            gene = self.genes[int(bad.any(0).argmax())]
            raise DataError(
                f"{self.name}: {sample}: the counts of gene {gene} have no logarithm (NaN, infinite, or -1 and less). "
                "Download its .h5ad again."
            )
        return np.log1p(counts)

    def _columns(self, rows: list[tuple[str, Split, list[str]]]) -> dict[str, np.ndarray]:
        sizes = [len(barcodes) for *_, barcodes in rows]
        row = np.concatenate([np.arange(n) for n in sizes])
        of = {
            "source": [(self.folder / split.patches).relative_to(self.root).as_posix() for _, split, _ in rows],
            "group": [PATIENTS.get(sample, sample) for sample, *_ in rows],
            "slide": [sample for sample, *_ in rows],
            "task": [self.task] * len(rows),
            **columns_of(self.splits, [sample for sample, *_ in rows]),
        }
        columns = {n: np.repeat(np.array(values), sizes) for n, values in of.items()}
        barcodes = np.array([b for *_, own in rows for b in own])
        return {
            **columns,
            "barcode": barcodes,
            "key": np.full(len(row), "img"),
            "row": row,
            "mpp": np.full(len(row), MPP),
        }

    def column(self, name: str) -> np.ndarray:
        """A column, unknown throughout where only other tasks have it."""
        if name in self.columns:
            return self.columns[name]
        return np.full(len(self.target), -1) if name == "fold" else np.full(len(self.target), "")

    def ids(self) -> Iterator[str]:
        for sample, barcode in zip(self.columns["slide"], self.columns["barcode"], strict=True):
            yield f"{sample}/{barcode}"


def read_barcodes(path: Path) -> list[str]:
    """The barcode of each patch of a file, in its order.

    Raises:
        DataError: the file is damaged, its patches are not RGB, or a barcode stands twice.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "img" not in file or "barcode" not in file:
                raise DataError(
                    f"{path} holds {', '.join(file) or 'nothing'}, not `img` and `barcode`. Download it again."
                )
            shape, dtype = file["img"].shape, file["img"].dtype
            values = np.asarray(file["barcode"][()]).ravel().tolist()
    except FileNotFoundError:
        raise DataError(f"{path} is missing, and a split file names it. Download the task again, whole.") from None
    except OSError as error:
        raise DataError(f"{path} is not an HDF5 file that can be read ({error}). Download it again.") from error
    names = [v.decode() if isinstance(v, bytes) else str(v) for v in values]
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
        raise DataError(f"{path}: img is {dtype} of shape {shape}, not uint8 (n, height, width, 3). Download it again.")
    if len(names) != shape[0]:
        raise DataError(f"{path}: {len(names)} barcodes for {shape[0]} patches. Download it again.")
    if not names:
        raise DataError(f"{path} holds no patch. Download it again.")
    if len(set(names)) < len(names):
        twice = next(n for i, n in enumerate(names) if n in names[:i])
        raise DataError(f"{path.stem}: barcode {twice} stands twice in {path}. Download it again.")
    return names


def _is_task(folder: Path) -> bool:
    return (folder / GENES).is_file() or ((folder / "splits").is_dir() and (folder / "patches").is_dir())


def _genes(path: Path) -> tuple[str, ...]:
    try:
        genes: Any = json.loads(path.read_text("utf-8"))["genes"]
    except FileNotFoundError:
        raise DataError(f"{path} is missing: it lists the genes of the task. Download it again.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path} is not {{"genes": [names]}} ({error!r}). Download it again.') from error
    if not isinstance(genes, list) or not genes or len(set(map(str, genes))) < len(genes):
        raise DataError(f"{path}: genes is no list of different names. Download it again.")
    return tuple(map(str, genes))


def _files(folder: Path) -> list[Path]:
    return [folder / "splits" / n for n in names_below(folder / "splits")] if (folder / "splits").is_dir() else []
