"""What every card is: frozen, validated, with a fingerprint.

A field is one of three sorts. A plain field can change a number and counts in the fingerprint. A *note* (licence, title)
cannot. A *place* (a path) does not count itself: the content found there does, added by whoever reads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import CardError

NAME_CHARS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")
LONGEST = 200  # characters of a name: with a fingerprint it is the name of a folder


def recorded(name: str) -> str:
    """A model's name as its card and records have it: `timm:ARCH` is called timm-ARCH; any other stays."""
    kind, colon, rest = name.partition(":")
    if not colon or not kind.isidentifier() or len(kind) < 2:
        return name
    full = f"{kind}-{''.join(c if c in NAME_CHARS else '_' for c in rest.strip('/'))}"
    return full if len(full) <= LONGEST else f"{full[: LONGEST - 13]}-{fingerprint(full)}"


def note(default: Any = "", **kw) -> Any:
    """A field that describes and never changes a number."""
    return _sorted_field("note", default, **kw)


def place(default: str = "") -> Any:
    """A path: its content counts, not its spelling."""
    return _sorted_field("place", default)


def _sorted_field(sort: str, default: Any, **kw) -> Any:
    if callable(default):
        return field(default_factory=default, metadata={"sort": sort}, **kw)
    return field(default=default, metadata={"sort": sort}, **kw)


def fingerprint(value: Any, length: int = 12) -> str:
    """Hex digest of any JSON-like value; equal values give equal digests on every machine."""
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=length // 2).hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON holds it: dataclasses and mappings as dicts, tuples as lists, paths as strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, type):
        return value.__name__
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Card:
    """The base: a name, checks, a fingerprint, and where the card was written."""

    name: str

    word: typing.ClassVar[str] = "card"

    def __post_init__(self) -> None:
        bad = set(self.name.replace("@", "", 1)) - NAME_CHARS if isinstance(self.name, str) else {"(not text)"}
        if bad or not self.name or self.name.startswith((".", "-")) or len(self.name) > LONGEST:
            raise CardError(
                f"{self.word} name {self.name!r}: use letters, digits, '.', '_', '+' and '-', {LONGEST} at most, and start with a letter or digit."
            )
        hints = _hints(type(self))
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _checked(self, f.name, hints[f.name], getattr(self, f.name)))
        self.check()

    def check(self) -> None:
        """Raise CardError when the fields do not fit each other."""

    @property
    def facts(self) -> dict[str, Any]:
        """The fields that can change a number and are not at their default: a field added later moves no address.

        A default is therefore for ever: to change one, give the field another name.
        """
        return {
            f.name: plain(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if not f.metadata.get("sort") and getattr(self, f.name) != _default(f)
        }

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.facts)

    def fail(self, key: str, why: str) -> CardError:
        return CardError(f"{self.word} {self.name}: {key} {why}")

    @classmethod
    def known_keys(cls) -> list[str]:
        return [f.name for f in dataclasses.fields(cls)]

    @classmethod
    def from_row(cls, name: str, row: Any, base: Path | None = None):
        """A card from a row of a registry file.

        Args:
            name: the row's key.
            row: its mapping; an unknown key is an error that lists the known ones.
            base: the folder of the file, against which relative places are read.
        """
        if not isinstance(row, Mapping):
            raise CardError(f"{cls.word} {name}: a row is a mapping such as `{name}: {{kind: …}}`, not {row!r}.")
        wrong = [k for k in row if k not in cls.known_keys()]
        if wrong:
            known = ", ".join(k for k in cls.known_keys() if k != "name")
            raise CardError(f"{cls.word} {name}: unknown key {', '.join(map(repr, wrong))}. Known keys: {known}.")
        row = {k: v for k, v in row.items() if v is not None}
        if base is not None:
            for f in dataclasses.fields(cls):
                if f.metadata.get("sort") == "place" and isinstance(row.get(f.name), str):
                    row[f.name] = anchored(row[f.name], base)
        return cls(**{"name": name, **row})


def _default(f: dataclasses.Field) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def anchored(path: str, base: Path) -> str:
    """A relative path read from `base`; `scheme:` addresses and absolute paths as they are."""
    head = path.split(":")[0]
    if not path or (":" in path and len(head) > 1 and "/" not in head) or Path(path).expanduser().is_absolute():
        return path
    return str(base / path)


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _checked(card: Card, key: str, hint: Any, value: Any) -> Any:
    """The value in the field's type (lists become tuples, ints floats), or a CardError that says what is expected."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _frozen(value)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        for arg in args:
            try:
                return _checked(card, key, arg, value)
            except CardError:
                continue
        raise card.fail(key, f"cannot be {value!r}.")
    if origin is tuple and isinstance(value, (list, tuple)):
        if args[-1] is Ellipsis:
            return tuple(_checked(card, key, args[0], v) for v in value)
        if len(value) == len(args):
            return tuple(_checked(card, key, a, v) for a, v in zip(args, value, strict=True))
    elif hint is dict and isinstance(value, Mapping):
        return _frozen(value)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif hint is str and isinstance(value, (str, Path)):
        return str(value)
    elif hint is bool and isinstance(value, bool):
        return value
    wanted = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}.get(
        hint, str(hint).replace("typing.", "")
    )
    raise card.fail(key, f"must be {wanted}, not {value!r}.")


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _frozen(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v) for v in value)
    return value
