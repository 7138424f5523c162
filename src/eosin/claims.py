"""Who works on what, told by small files: it saves double work and is never needed for correctness."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import time
from pathlib import Path

from .errors import StoreError
from .files import free_space

PLAIN = re.compile(r"[A-Za-z0-9.~_-]+")  # what `me` writes: never a path
STALE = 60.0  # seconds without a sign of life after which a claim is void


class Claims:
    """Who works on which block of an address: `part-000012.claim` holds host, process and its start.

    A claim of a process that is gone is void at once (same machine); any, of a frozen one too, when nobody has touched it
    for STALE seconds, and one that claims to be of the future: clocks do not stand so far apart.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mine: set[Path] = set()

    def path(self, block: int) -> Path:
        return self.folder / f"part-{block:06d}.claim"

    def take(self, block: int) -> bool:
        """Claim a block; False when somebody alive holds it."""
        path = self.path(block)
        if self._made(path):
            return True
        return self.void(path) and self._taken_over(path)

    def _taken_over(self, path: Path) -> bool:
        """A void claim goes to one of all those who found it so: under a claim on the taking they look once more."""
        taking = path.with_name(f"{path.stem}.taking.claim")
        if not self._made(taking):
            if self.void(taking):  # whoever made it was killed in here; the next to come gets in
                self._clear(taking)
            return False
        try:
            if not self.void(path):
                return False
            self._clear(path)
            return self._made(path)
        finally:
            self._drop(taking)

    def _made(self, path: Path) -> bool:
        """A claim of this process, unless there is one."""
        made = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(path, "x") as handle:
                made = True
                handle.write(me())
        except FileExistsError:
            return False
        except OSError as error:
            if made:  # and not filled: the disk is full
                path.unlink(missing_ok=True)
            raise StoreError(
                f"Cannot write into {self.folder}: {error.strerror}. {free_space(self.folder)} Name another folder with --store."
            ) from error
        self.mine.add(path)
        return True

    def _drop(self, path: Path) -> None:
        """Give a claim back, unless it was void meanwhile and is another's now."""
        self.mine.discard(path)
        with contextlib.suppress(OSError):
            if _owner(path) == me():
                path.unlink()

    def release(self, block: int) -> None:
        self._drop(self.path(block))

    def release_all(self) -> None:
        for path in list(self.mine):
            self._drop(path)

    def touch(self) -> None:
        """A sign of life, for those who watch from other machines."""
        for path in list(self.mine):
            with contextlib.suppress(OSError):
                os.utime(path)

    def void(self, path: Path) -> bool:
        """Whether the owner of a claim is gone; one that cannot be read is judged by its age."""
        try:
            touched = path.lstat().st_mtime
            owner = _owner(path)
        except FileNotFoundError:
            return True
        except OSError:
            return self._silent(touched)
        if not owner:  # its writer was killed between making and filling it, or is just doing so
            return self._silent(touched, 2)
        return self._dead(owner, touched) or self._silent(touched)  # alive, and frozen

    def gone(self, owner: str) -> bool:
        """Whether the writer of a file that carries its owner's name is gone: here at once, elsewhere after STALE seconds."""
        marks = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                own = _owner(path) == owner if path.suffix == ".claim" else path.name[0] == "." and owner in path.name
                marks += [path.stat().st_mtime] if own else []
        return self._dead(owner, max(marks, default=0.0))

    def _dead(self, owner: str, touched: float) -> bool:
        host, _, rest = owner.partition("~")
        if host == _host():
            pid, _, started = rest.partition("~")
            return not pid.isdigit() or _started(int(pid)) != started
        return self._silent(touched)

    def _silent(self, touched: float, seconds: float = STALE) -> bool:
        age = self._now() - touched
        return age > seconds or age < -STALE

    def _now(self) -> float:
        """The file system's clock, which other machines share."""
        probe = self.folder / f".clock.{me()}"
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()

    def _clear(self, path: Path) -> None:
        """Remove a void claim and what its owner had begun; StoreError where something stays in the way."""
        owner = ""
        with contextlib.suppress(OSError):
            owner = _owner(path)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{path} is in the way, and is no claim of ours ({error.strerror}). Remove it.") from error
        if PLAIN.fullmatch(owner):
            (self.folder / f".{path.stem}.{owner}.tmp").unlink(missing_ok=True)


def _owner(path: Path) -> str:
    """Who wrote a claim, whatever it holds; OSError where it cannot be read, or is no file."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is no file")
    return path.read_text(errors="replace")


def _host() -> str:
    """Where process numbers mean the same: a machine, or a container, which may carry its machine's name."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", f"{socket.gethostname()}-{_namespace()}")


def _namespace() -> str:
    with contextlib.suppress(OSError):
        return str(os.stat("/proc/self/ns/pid").st_ino)
    return ""


def me() -> str:
    """This process, as no other is called, here or elsewhere."""
    return f"{_host()}~{os.getpid()}~{_started(os.getpid())}"


def _started(pid: int) -> str:
    """A mark of a living process that no later one of the same number shares; "" when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "alive"
