"""Where things lie: EOSIN_HOME and what overrides its parts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def home() -> Path:
    """EOSIN_HOME, else the platform's folder for a user's data."""
    import sys

    if os.environ.get("EOSIN_HOME"):
        return Path(os.environ["EOSIN_HOME"]).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "eosin"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "eosin"
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "eosin"


@dataclass(frozen=True)
class Places:
    """The folders of one command."""

    home: Path
    data: Path
    store: Path
    results: Path
    registries: tuple[Path, ...] = ()

    @classmethod
    def of(
        cls,
        data: str | None = None,
        store: str | None = None,
        results: str | None = None,
        registries: tuple[str, ...] = (),
    ) -> Places:
        """Each option where given, else its folder below EOSIN_HOME; the user's own registry.yaml comes first."""
        base = home()
        own = base / "registry.yaml"
        return cls(
            home=base,
            data=Path(data).expanduser().absolute() if data else base / "data",
            store=Path(store).expanduser().absolute() if store else base / "embeddings",
            results=Path(results).expanduser().absolute() if results else base / "results",
            registries=((own,) if own.is_file() else ()) + tuple(Path(r).expanduser().absolute() for r in registries),
        )

    @property
    def indexes(self) -> Path:
        return self.home / "indexes"
