"""The engine of distillation: devices, precision, processes, checkpoints. What is learned is the recipe's affair.

A step is a function of (seed, step) and of the state before it, whatever the number of processes and interruptions: data
order, augmentation and dropout are drawn anew from these two numbers, never from where a generator happens to stand.
"""

from __future__ import annotations

import contextlib
import copy
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint, joint, processes
from .errors import ModelError, NotApplicable, UsageError
from .extractor import FeatureExtractor
from .recipe import DistillationRecipe
from .trainset import Batches

GIGA = 2**30


class Interrupted(Exception):
    """SIGTERM or Ctrl-C came; the step in work was finished and kept."""


@dataclass(frozen=True)
class Plan:
    """How to compute.

    Attributes:
        precision: fp32, bf16 or fp16, of the forward passes; weights stay float32.
        accumulate: pieces that a batch is cut into, one after the other. Not the same for losses over a whole batch.
        checkpoint_every: steps between checkpoints, 0 for none before the end.
        recompute: activations of the student are computed again in the backward pass, which saves memory.
        probe_every: steps between looks at the held-out tiles, 0 for none.
    """

    device: str
    seed: int = 0
    precision: str = "fp32"
    accumulate: int = 1
    checkpoint_every: int = 500
    compile: bool = False
    recompute: bool = False
    probe_every: int = 0


@dataclass
class State:
    """All that changes with a step."""

    module: Any
    optimizer: Any
    scaler: Any
    average: Any = None
    step: int = 0
    history: list[float] = field(default_factory=list)
    finished: bool = False
    seconds: float = 0.0
    broken: dict[str, str] = field(default_factory=dict)


class Distillation:
    """One run. `steps()` does it, a log line at a time; `state.module.backbone` is what has been learned.

    Args:
        teacher, student: two extractors; the student's module is trained in place.
        out: the folder of the run.
    """

    def __init__(
        self,
        recipe: DistillationRecipe,
        teacher: FeatureExtractor,
        student: FeatureExtractor,
        batches: Batches,
        out: Path,
        plan: Plan,
    ) -> None:
        import torch

        self.recipe, self.teacher, self.student, self.batches, self.out, self.plan = (
            recipe, teacher, student, batches, out, plan,
        )  # fmt: skip
        if batches.batch % (joint.world() * plan.accumulate):
            raise UsageError(
                f"A batch of {batches.batch} cannot be shared by {joint.world()} processes in {plan.accumulate} pieces. "
                "Choose a --batch-size that is a multiple."
            )
        torch.manual_seed(plan.seed)
        teacher.device = student.device = plan.device
        self.module = self._module()
        self.teach = torch.compile(teacher.embed) if plan.compile else teacher.embed
        groups = [dict(g) for g in recipe.groups(self.module)]
        self.scales = [(g.pop("lr_scale", 1.0), g.pop("decay_scale", 1.0)) for g in groups]
        scaler = torch.amp.GradScaler(plan.device.split(":")[0], enabled=plan.precision == "fp16")
        self.state = State(self.module, torch.optim.AdamW(groups, lr=0.0), scaler)
        if "ema" in recipe.schedule(0):
            self.state.average = copy.deepcopy(self.module).requires_grad_(False)

    def _module(self) -> Any:
        teacher, student = self.teacher, self.student
        backbone = student.module
        if getattr(teacher, "_module", None) is backbone:
            raise UsageError("Teacher and student are one network. Give the student a name or a copy of its own.")
        backbone.requires_grad_(True)
        if self.plan.recompute and not hasattr(backbone, "set_grad_checkpointing"):
            raise UsageError(f"{student.card.name} cannot recompute activations. Leave out --recompute.")
        if self.plan.recompute:
            backbone.set_grad_checkpointing(True)
        module = self.recipe.student(teacher, student)
        if getattr(module, "backbone", None) is not backbone:
            raise ModelError(
                f"{self.recipe.card.name}: student() must give a module whose `backbone` is student.module."
            )
        return module.to(self.plan.device).train()

    @property
    def learned(self) -> Any:
        """The module that is left at the end: the moving average where the recipe keeps one."""
        return self.module if self.state.average is None else self.state.average

    def begin(self, resume: bool) -> bool:
        """Take up the last checkpoint, or prepare the recipe; whether there is anything left to do."""
        if resume and checkpoint.there(self.out):
            checkpoint.load(self.out, self.state, self.plan.device)
            self.batches.broken |= self.state.broken
        else:
            self.recipe.prepare(self.module, self._taught)
            if self.state.average is not None:
                self.state.average.load_state_dict(self.module.state_dict())
        return self.state.step < self.recipe.options["steps"] and not self.state.finished

    def _taught(self, n: int) -> Iterator[dict[str, Any]]:
        """The teacher's readouts of the first n tiles of the run, as the recipe's views show them."""
        import torch

        taken, n = 0, min(n, len(self.batches.order.rows))  # the same tiles again would tell nothing new
        for step, (_, images) in enumerate(self.batches.steps(0, math.ceil(n / self.batches.batch))):
            generator = self._generator(step, 0, stream=1)
            views = self.recipe.views(self._tiles(images), generator)
            with torch.no_grad(), self._cast():
                out = _named(self.teach(self._seen(views[0], self.teacher)))
            left = -(-(n - taken) // joint.world())  # the same on every process
            yield {k: v.float()[:left] for k, v in out.items()}
            taken += len(images) * joint.world()

    def steps(self) -> Iterator[dict[str, Any]]:
        """One mapping of log values a step: step, loss, lr, weight_decay, seconds, tiles …

        Raises:
            ModelError: a loss that is not a number, naming the tiles. Interrupted: a signal came.
        """
        state, last = self.state, self.recipe.options["steps"]
        with _signals() as told:
            for rows, images in self.batches.steps(state.step, last):
                line = self._step(rows, images)
                yield line
                stop = self.recipe.stop(state.history)
                told_any = processes.any_process(bool(told))
                every = self.plan.checkpoint_every
                if stop or told_any or (every and state.step % every == 0) or state.step == last:
                    state.finished = stop
                    self.keep()
                if told_any:
                    raise Interrupted
                if stop:
                    return

    def keep(self) -> None:
        """A checkpoint, written by the first process."""
        self.state.broken = joint.merged(self.batches.broken)
        if joint.rank() == 0:
            checkpoint.save(self.out, self.state)
        processes.barrier()

    def _step(self, rows: list[int], images: np.ndarray) -> dict[str, Any]:
        import torch

        state, recipe, start = self.state, self.recipe, time.perf_counter()
        values = recipe.schedule(state.step)
        for group, (lr, decay) in zip(state.optimizer.param_groups, self.scales, strict=True):
            group["lr"], group["weight_decay"] = values["lr"] * lr, values["weight_decay"] * decay
        state.optimizer.zero_grad(set_to_none=True)
        loss, pieces = torch.zeros((), device=self.plan.device), self.plan.accumulate
        for piece, some in enumerate(np.array_split(images, pieces)):
            part = self._loss(self._tiles(some), piece) / pieces
            state.scaler.scale(part).backward()
            loss += part.detach()
        value = float(joint.mean(loss))
        if not math.isfinite(value):
            self._refuse(rows, value)
        processes.average_gradients(self.module.parameters())
        state.scaler.unscale_(state.optimizer)
        clip = values.get("clip") or math.inf
        norm = torch.nn.utils.clip_grad_norm_([p for p in self.module.parameters() if p.grad is not None], clip)
        if self.plan.precision != "fp16" and not math.isfinite(norm):  # the scaler passes over such a step by itself
            self._refuse(rows, float(norm), "gradient")
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average is not None:
            self._follow(values["ema"])
        state.step += 1
        state.history.append(value)
        seconds = time.perf_counter() - start
        state.seconds += seconds
        line = {"step": state.step, "loss": value, **values, "gradient": float(norm), "seconds": round(seconds, 4)}
        line["tiles_per_second"] = round(self.batches.batch / max(seconds, 1e-9), 2)
        if self.plan.device.startswith("cuda"):
            line["gpu_gb"] = round(torch.cuda.max_memory_allocated(self.plan.device) / GIGA, 2)
        return line

    def _loss(self, tiles: Any, piece: int) -> Any:
        import torch

        state, recipe = self.state, self.recipe
        torch.manual_seed(_mixed(self.plan.seed, state.step, piece, 2 + joint.rank()))  # dropout and the like
        views = recipe.views(tiles, self._generator(state.step, piece))
        with torch.no_grad(), self._cast():
            taught = [_named(self.teach(self._seen(v, self.teacher))) for v in views[: recipe.teacher_views]]
        with self._cast():
            learned = [_named(self.module(self._seen(v, self.student))) for v in views]
        try:
            loss = recipe.loss(_floats(taught), _floats(learned), state.step)
        except NotApplicable as error:  # of one of the two; the recipe knows no names
            raise NotApplicable(f"{self.teacher.card.name} teaches {self.student.card.name}: {error}") from error
        if loss.ndim:
            raise ModelError(f"{recipe.card.name}: loss() must give one number, not shape {tuple(loss.shape)}.")
        return loss

    def _follow(self, keep: float) -> None:
        """The moving average takes its share of the module."""
        import torch

        with torch.no_grad():
            ours, theirs = self.state.average.state_dict(), self.module.state_dict()
            for name, value in ours.items():
                if value.is_floating_point():
                    value.lerp_(theirs[name], 1 - keep)
                else:
                    value.copy_(theirs[name])

    def _refuse(self, rows: list[int], value: float, what: str = "loss") -> None:
        ids = ", ".join(self.batches.table["id"][rows].tolist())
        kept = "the checkpoint before is kept" if checkpoint.there(self.out) else "there was no checkpoint yet"
        raise ModelError(
            f"The {what} is {value} at step {self.state.step}; {kept}. Its tiles were {ids}. Look at them: once they are mended, "
            "--resume goes on. If it is not the tiles, begin again in another --out with a lower lr (--option lr=…) or --precision fp32."
        )

    def _tiles(self, images: np.ndarray) -> Any:
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.plan.device, non_blocking=True)
        return batch.permute(0, 3, 1, 2).float() / 255

    def _seen(self, view: Any, model: FeatureExtractor) -> Any:
        import torch

        mean, std = (torch.tensor(v, device=view.device).view(1, 3, 1, 1) for v in (model.card.mean, model.card.std))
        return (view - mean) / std

    def _cast(self) -> Any:
        import torch

        half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.plan.precision)
        return torch.autocast(self.plan.device.split(":")[0], dtype=half) if half else contextlib.nullcontext()

    def _generator(self, step: int, piece: int, stream: int = 0) -> Any:
        import torch

        return torch.Generator().manual_seed(_mixed(self.plan.seed, step, piece, stream))


def _mixed(*numbers: int) -> int:
    """One seed of several numbers, so that neighbours have nothing in common."""
    return int(np.random.SeedSequence([n & 0xFFFFFFFF for n in numbers]).generate_state(1, np.uint64)[0] >> 1)


def _named(out: Any) -> dict[str, Any]:
    return dict(out) if isinstance(out, dict) else {"pooled": out}


def _floats(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v.float() for k, v in out.items()} for out in views]


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that grows when SIGTERM or Ctrl-C comes, so that the step in work can end first."""
    told: list[int] = []
    before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError):  # only the main thread may listen
            before[number] = signal.signal(number, lambda n, frame: told.append(n))
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
