"""What the workers of an address have published, refused and lost, as the front sees it: it watches the parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .embed import Engine, Job, Progress, unreadable
from .errors import EosinError
from .tiles import BrokenTile


class Tally:
    """The count of one address while others fill it.

    Attributes:
        left: blocks that are not published yet. refused: those that stay so for their broken tiles.
        lost: what ended each worker that was lost. say: told of them.
    """

    def __init__(self, job: Job, engine: Engine, progress: Progress, say: Callable[[str], None]) -> None:
        self.job, self.engine, self.progress, self.say = job, engine, progress, say
        self.before = self.left = engine.missing(job.address)
        self.done = 0
        self.refused: set[int] = set()
        self.broken: dict[str, BrokenTile] = {}
        self.lost: list[EosinError] = []

    def look(self) -> list[int]:
        """Report the progress since the last look; the blocks that are left."""
        self.left = self.engine.missing(self.job.address)
        rows = self.job.address.rows_of(set(self.before).difference(self.left))
        self.progress(rows - self.done)
        self.done = rows
        return self.left

    def hear(self, tiles: list[BrokenTile]) -> None:
        """Of tiles that a worker could not read; two may have met the same."""
        self.broken |= {tile.tile: tile for tile in tiles}

    def lose(self, error: EosinError) -> None:
        """A worker, which is told at once, and an error at the end only if something is missing then."""
        self.lost.append(error)
        self.say(str(error))

    def end(self) -> int:
        """The rows that were published meanwhile.

        Raises:
            EosinError: what ended the first worker that was lost, when something is missing for it.
            DataError: tiles that cannot be read.
        """
        if self.lost and set(self.left).difference(self._explained()):
            raise self.lost[0]
        if self.broken:
            raise unreadable(self.job, self.engine, list(self.broken.values()))
        return self.done

    def _explained(self) -> set[int]:
        """The blocks whose broken tiles are known by name: a worker may be lost before it could tell."""
        if not self.broken:
            return set()
        rows = np.flatnonzero(np.isin(self.job.index.table["id"], list(self.broken)))
        return set((rows // self.job.address.block).tolist())
