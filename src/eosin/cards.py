"""Cards: the facts of a model, dataset, protocol, benchmark, recipe or suite. What they share: `card`."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .card import NAME_CHARS, Card, anchored, fingerprint, note, place, plain, recorded
from .errors import UsageError

__all__ = ["NAME_CHARS", "Card", "anchored", "fingerprint", "plain", "recorded"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelCard(Card):
    """The facts of a model: how to build it, how it sees, what it gives.

    `mean` and `std` are ImageNet's unless the card says otherwise; `crop` is the share of the resized shorter side that
    the centre crop keeps (0.875: 224 of 256); `dim` is the width of the recommended readout; `mpp` is one scale or the
    several that the model was trained at; `how` says how to get weights that no hub holds, `sha256` what they hash to.
    """

    dim: int | None = None
    mpp: float | tuple[float, ...] | None = None
    kind: str = "class"
    arch: str = ""
    arch_options: dict = field(default_factory=dict)
    hub: str = ""
    revision: str = ""
    file: str = ""
    key_map: str = ""
    size: int = 224
    crop: float = 1.0
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    precision: str = "fp32"
    stored: str = "float32"
    readout: str = ""
    readouts: tuple[str, ...] = ()
    prefix_tokens: int | None = None
    seed: int = 0
    version: str | int = 1
    options: dict = field(default_factory=dict)
    weights: str = place()
    title: str = note()
    aliases: tuple[str, ...] = note(())
    params: int | None = note(None)
    gflops: float | None = note(None)
    licence: str = note()
    register_tokens: int | None = note(None)
    tensors: int | None = note(None)
    gated: str | bool = note("")
    paper: str = note()
    url: str = note()
    year: int | None = note(None)
    seen: tuple[str, ...] = note(("unknown",))
    how: str = note()
    sha256: str = note()
    distilled: dict = note(dict)
    description: str = note()

    word: typing.ClassVar[str] = "model"

    def check(self) -> None:
        scales = self.mpp if isinstance(self.mpp, tuple) else () if self.mpp is None else (self.mpp,)
        if not all(0 < v < math.inf for v in scales):
            raise self.fail("mpp", f"is um per pixel, above 0, not {self.mpp}.")
        if not 0 <= self.seed < 2**31:
            raise self.fail("seed", f"is a number from 0 to 2^31, not {self.seed}.")
        if self.dim is not None and self.dim < 1:
            raise self.fail("dim", f"must be at least 1, not {self.dim}.")
        if self.size < 1:
            raise self.fail("size", f"must be at least 1 pixel, not {self.size}.")
        if not 0 < self.crop <= 1:
            raise self.fail("crop", f"is a share between 0 and 1, not {self.crop}.")
        if self.interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
            raise self.fail("interpolation", f"is nearest, bilinear, bicubic or lanczos, not {self.interpolation!r}.")
        if self.precision not in ("fp32", "fp16", "bf16"):
            raise self.fail("precision", f"is fp32, fp16 or bf16, not {self.precision!r}.")
        if self.stored not in ("float32", "float16"):
            raise self.fail("stored", f"is float32 or float16, not {self.stored!r}.")
        units = "of pixels from 0 to 1; divide numbers of 0 … 255 by 255"
        if not all(0 <= v <= 1 for v in self.mean):
            raise self.fail("mean", f"is {units}, not {list(self.mean)}.")
        if not all(0 < v <= 1 for v in self.std):
            raise self.fail("std", f"is {units}, and above 0, not {list(self.std)}.")


@dataclass(frozen=True)
class DatasetCard(Card):
    """The facts of a dataset: what reads it, where it lies, what its labels mean."""

    kind: str = "manifest"
    mpp: float | None = None
    classes: tuple[str, ...] = ()
    options: dict = field(default_factory=dict)
    root: str = note("")
    table: str = note("")
    targets: str = note("")
    title: str = note()
    counts: dict = note(dict)
    tree: str = note()
    how: str = note()
    url: str = note()
    licence: str = note()
    registration: str = note()
    sources: tuple[str, ...] = note(())
    made_by: str = note()
    description: str = note()
    base: str = note("")

    word: typing.ClassVar[str] = "dataset"

    def check(self) -> None:
        if self.mpp is not None and not 0 < self.mpp < math.inf:
            raise self.fail("mpp", f"is um per pixel, above 0, not {self.mpp}.")

    @classmethod
    def from_row(cls, name: str, row: Any, base: Path | None = None):
        card = super().from_row(name, row, base)
        return dataclasses.replace(card, base=str(base)) if base else card


@dataclass(frozen=True)
class Option:
    """One free choice of a protocol: its default, what it may be, what it means.

    Args:
        default: the value when nothing is said.
        allowed: a tuple of values, or a type, or None for the default's own type.
        doc: one sentence.
        required: why there is no default, and what to say instead: a task without it is refused before anything is embedded.
    """

    default: Any
    allowed: Any = None
    doc: str = ""
    required: str = ""

    def read(self, protocol: str, name: str, value: Any) -> Any:
        """`value` (text from a command line, or a Python value) as this option takes it, else UsageError."""
        if isinstance(value, str) and not isinstance(self.default, str):
            value = _number(value)
        if isinstance(self.allowed, tuple):
            for choice in self.allowed:
                if value == choice or str(value) == str(choice):
                    return choice
            raise UsageError(f"{protocol}: option {name}={value} is not one of {', '.join(map(str, self.allowed))}.")
        if self.default is None and (value is None or self.allowed is None):
            return value
        kind = self.allowed or type(self.default)
        if kind is bool and str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        if isinstance(value, kind) and not isinstance(value, bool):
            return value
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind is int and isinstance(value, float) and value == int(value):
            return int(value)
        raise UsageError(f"{protocol}: option {name} takes {kind.__name__}, not {value!r}.")


def _number(text: str) -> Any:
    low = text.strip().lower()
    if low in ("true", "false", "none", "null"):
        return {"true": True, "false": False}.get(low)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _options(given: Mapping[str, Any]) -> dict[str, Option]:
    return {
        k: v if isinstance(v, Option) else Option(**v) if isinstance(v, Mapping) else Option(v)
        for k, v in given.items()
    }


def _completed(name: str, options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    wrong = [k for k in given if k not in options]
    if wrong:
        raise UsageError(f"{name} has no option {', '.join(wrong)}. Its options: {', '.join(options) or 'none'}.")
    found = {k: o.read(name, k, given[k]) if k in given else o.default for k, o in options.items()}
    seed = found.get("seed")
    if isinstance(seed, int) and not 0 <= seed < 2**31:
        raise UsageError(f"{name}: seed={seed}. Give a whole number from 0 to {2**31 - 1}.")
    endless = [k for k, v in found.items() if isinstance(v, float) and not math.isfinite(v)]
    if endless:
        raise UsageError(f"{name}: {endless[0]}={found[endless[0]]} is not a finite number. Give one.")
    return found


@dataclass(frozen=True)
class ProtocolCard(Card):
    """A named, versioned, complete way from embeddings to scores. `name` carries the version: `g2l-knn@1`.

    `rows`, `online`, `readout` and `geometry` are what it asks of the data (see Need); a benchmark's own `readout` and
    `geometry` come first. `against`: it compares two models.
    """

    options: dict = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    ddof: int = 1
    version: int | None = None
    rows: str = "items"
    online: bool = False
    against: bool = False
    readout: str = "default"
    geometry: str = "card"
    notes: str = note()

    word: typing.ClassVar[str] = "protocol"

    def check(self) -> None:
        base, _, version = self.name.partition("@")
        number = self.version if self.version is not None else int(version) if version.isdigit() else 1
        if version and version != str(number):
            raise self.fail("name", f"ends in a version such as {base}@1, and version says {number}.")
        options = _options(self.options)
        object.__setattr__(self, "name", f"{base}@{number}")
        object.__setattr__(self, "version", number)
        object.__setattr__(self, "options", options)

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every option with its value; UsageError for an unknown name or a value that is not allowed."""
        return _completed(self.name, self.options, given)


@dataclass(frozen=True)
class BenchmarkCard(Card):
    """dataset + protocol + primary metric. `label` is the table's column that holds the label; `subsets` maps a column
    to the values that are scored apart and averaged, as `{magnification: [40, 100]}`."""

    dataset: str = ""
    protocol: str = ""
    metric: str = ""
    kind: str = ""
    options: dict = field(default_factory=dict)
    readout: str = "default"
    view: str = "original"
    geometry: str = "card"
    label: str = "label"
    subsets: dict = field(default_factory=dict)
    better: str = note("higher")
    title: str = note()
    paper: str = note()
    description: str = note()

    word: typing.ClassVar[str] = "benchmark"

    def check(self) -> None:
        for key in ("dataset", "metric"):
            if not getattr(self, key):
                raise self.fail(key, f"is missing: say which {key}.")
        if not self.protocol:
            object.__setattr__(self, "protocol", f"{self.name}@1")
        if "@" not in self.protocol:
            object.__setattr__(self, "protocol", f"{self.protocol}@1")


@dataclass(frozen=True)
class RecipeCard(Card):
    """How to distil a teacher into a student: every hyperparameter an Option, with the paper's value as default.

    `steps` and `batch_size` (over all processes) are options of every recipe.
    """

    kind: str = "class"
    options: dict = field(default_factory=dict)
    paper: str = note()
    description: str = note()

    word: typing.ClassVar[str] = "recipe"

    def check(self) -> None:
        usual = {
            "steps": Option(10_000, doc="Steps of the optimiser, and the horizon of the schedules."),
            "batch_size": Option(32, doc="Tiles a step, over all processes."),
        }
        object.__setattr__(self, "options", _options({**usual, **self.options}))

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every option with its value; UsageError for an unknown name or a value that is not allowed."""
        return _completed(self.name, self.options, given)


@dataclass(frozen=True)
class SuiteCard(Card):
    """An explicit, versioned list of benchmarks."""

    benchmarks: tuple[str, ...] = ()
    version: int = 1
    description: str = note()

    word: typing.ClassVar[str] = "suite"

    @classmethod
    def from_row(cls, name: str, row: Any, base: Path | None = None):
        return super().from_row(name, {"benchmarks": row} if isinstance(row, (list, tuple)) else row, base)
