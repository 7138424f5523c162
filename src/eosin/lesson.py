"""One distillation from the command's words to a model: what is taught, on what, and what is written down of it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import checkpoint, joint, processes
from .cards import plain
from .distill import Distillation, Interrupted, Plan
from .embed import Engine
from .environment import environment
from .errors import EosinError, ModelError, StoreError, UsageError, unknown
from .extractor import FeatureExtractor
from .files import free_space, publish
from .graduate import (
    LOG,
    RUN,
    can_graduate,
    changed,
    check_licences,
    check_same_run,
    digest,
    draw_curves,
    log_lines,
    name_of,
    write_model,
    write_tiles,
)
from .index import Index, open_index
from .places import Places
from .plugins import Catalogue
from .recipe import DistillationRecipe
from .trainset import Batches, choose, dataset_of
from .watchtower import Watchtower

MOST_LABELLED = 1000
Watch = Callable[..., None]


class Lesson:
    """Everything of a run but the steps themselves.

    Args:
        o: the command's options by name, `options` those of the recipe. exclude: slides and patients not to train on.
        watch: progress. say: a remark.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        places: Places,
        recipe: str,
        out: Path,
        o: Mapping[str, Any],
        exclude: list[str],
        watch: Watch,
        say: Callable[[str], None],
    ) -> None:
        self.catalogue, self.places, self.out, self.o, self.exclude = catalogue, places, out, o, exclude
        self.watch, self.say = watch, say
        if checkpoint.there(out) and not o["resume"]:
            raise UsageError(f"{out} holds a run already. Go on with it by --resume, or name another --out.")
        self.recipe = self._recipe(recipe)
        self.teacher, self.student = self._models()
        can_graduate(self.student)
        self.licences = check_licences([self.teacher.card, self.student.card], o["accept_licence"])
        self.device = processes.start(Engine(o["device"]).resolved_device())
        self.first = joint.rank() == 0
        self.index = self._index()
        batch, side = self.recipe.options["batch_size"], self._side()
        held, table = o["held_out"], self.index.table
        self.choice = choose(table, o["max_slides"], o["max_tiles"], held, exclude, o["seed"])
        share = (joint.rank(), joint.world())
        self.batches = Batches(self.index, self.choice.rows, batch, side, o["seed"], o["workers"], *share)
        self.warned = list(self.index.warnings)
        if idle := self.choice.idle:
            say(f"{len(idle)} of {len(exclude)} lines of --exclude are of no slide or tile here, such as {idle[0]}")
        if len(self.choice.held_out) < held:
            self.warned.append(f"--held-out {held}: {len(self.choice.held_out)} tiles, at most a fifth of all")

    def _side(self) -> int:
        options = self.recipe.options
        return int(options.get("tile") or options.get("crop") or self.teacher.card.size)

    def _recipe(self, name: str) -> DistillationRecipe:
        known = self.catalogue.recipes.things
        if name not in known:
            raise unknown("recipe", name, list(known), "bench list recipes")
        options = dict(self.o["options"])
        options |= {k: self.o[k] for k in ("steps", "batch_size") if self.o[k] is not None}
        return type(known[name])(known[name].card, options)

    def _models(self) -> tuple[FeatureExtractor, FeatureExtractor]:
        """Teacher and student, each an object of its own."""
        o = self.o
        teacher = o["teacher"] if o["control"] != "continued" else o["student"]
        found = [self.catalogue.model(name) for name in (teacher, o["student"])]
        for model in found:
            if model.available() != "here" and (error := model.missing_weights()):
                raise error
        if found[0] is found[1]:
            import copy

            found[1] = copy.copy(found[1])
        for model in found:
            kind = type(model)
            own = {n: getattr(kind, n) is not getattr(FeatureExtractor, n) for n in ("transform", "build", "embed")}
            if own["transform"] or not (own["build"] or own["embed"] and model is found[0]):
                raise UsageError(
                    f"{model.card.name} has no network that sees tensors normalised by its card, so it cannot "
                    f"{'teach' if model is found[0] else 'learn'}. Choose another model; `bench list models` shows them."
                )
            model._module = None
        return found[0], found[1]

    def _index(self) -> Index:
        o = self.o
        folder = Path(o["slides"] or o["tiles"])
        tiling = {k: o[k] for k in ("mpp", "size", "rule", "share")}
        tiling |= {k: o[k] for k in ("slide_mpp", "coordinates") if o[k]}
        if o["coordinates"]:
            tiling["coordinates"] = str(Path(o["coordinates"]).absolute())
        dataset = dataset_of(folder, bool(o["slides"]), tiling)
        root = folder if folder.is_dir() else folder.parent

        def progress(done: int, total: int) -> None:
            self.watch(f"reading {folder}", done, total)

        return open_index(dataset, self.places.data, self.places.indexes, root.absolute(), progress)

    def run(self) -> tuple[dict[str, Any], str]:
        """Train, and leave a model; (facts, a text) of what came of it.

        Raises:
            UsageError: --resume with other settings. Interrupted runs end with an EosinError that says how to go on.
        """
        o = self.o
        facts = self._facts()
        if o["resume"] and checkpoint.there(self.out):
            check_same_run(self.out, facts)
        plan = Plan(
            self.device, o["seed"], o["precision"], o["accumulate"], o["checkpoint_every"], o["compile"], o["recompute"],
            o["probe_every"],
        )  # fmt: skip
        run = Distillation(self.recipe, self.teacher, self.student, self.batches, self.out, plan)
        try:
            if run.begin(o["resume"]):
                self._write_down(facts)
                self._train(run)
            elif (self.out / "card.yaml").is_file():
                return self._told(run, "nothing was left to do")
            return self._graduate(run, facts)
        except Exception as error:
            raise self._memory(error) from error
        finally:
            self.batches.close()

    def _facts(self) -> dict[str, Any]:
        """What makes this run what it is: the same facts, the same student."""
        table, rows = self.index.table, self.choice.rows
        return {
            "recipe": self.recipe.card.name,
            "options": plain(self.recipe.options),
            "teacher": f"{self.teacher.card.name}@{self.teacher.fingerprint()}",
            "student": f"{self.student.card.name}@{self.student.fingerprint()}",
            "control": self.o["control"] or "",
            "seed": self.o["seed"],
            "precision": self.o["precision"],
            "accumulate": self.o["accumulate"],
            "data": {
                "tiles": len(rows),
                "slides": self.choice.slides,
                "excluded_slides": self.choice.excluded,
                "held_out": len(self.choice.held_out),
                "list": digest([self.index.tiles, *table["id"][rows].tolist()]),
            },
        }

    def _write_down(self, facts: dict[str, Any]) -> None:
        """run.json, and tiles.csv: which tiles are used, of which slides."""
        if not self.first:
            return
        try:
            publish(self.out / RUN, json.dumps(facts, indent=1).encode())
            write_tiles(self.out, self.index.table, self.choice)
        except OSError as error:
            raise StoreError(f"{self.out} cannot be written: {error}. Name another --out.") from error

    def _train(self, run: Distillation) -> None:
        state, last, every = run.state, self.recipe.options["steps"], self.o["probe_every"]
        tower = self._tower() if every and self.first else None
        lines = log_lines(self.out, state.step) if state.step else []
        log = None
        if self.first:
            publish(self.out / LOG, "".join(json.dumps(x) + "\n" for x in lines).encode())
            log = open(self.out / LOG, "a", encoding="utf-8")  # noqa: SIM115 - closed below
        board = _board(self.out) if self.first else None

        def write(line: dict[str, Any]) -> None:
            assert log is not None
            log.write(json.dumps(line) + "\n")
            log.flush()
            for name, value in line.items():
                if board is not None and name != "step":
                    board.add_scalar(name, value, line["step"])

        def look() -> None:
            if tower is not None:
                write({"step": state.step, **tower.look(self.student, run.learned.backbone)})

        try:
            if state.step == 0:
                look()
            for line in run.steps():
                if not self.first:
                    continue
                write(line)
                note = f"loss {line['loss']:.4g}, lr {line['lr']:.2g}, {line['tiles_per_second']:.0f} tiles/s"
                self.watch(
                    "distilling", state.step, last, note + (f", {line['gpu_gb']} GB" if "gpu_gb" in line else "")
                )
                if every and (state.step % every == 0 or state.step == last):
                    look()
        except Interrupted:
            raise EosinError(
                f"Stopped at step {state.step} of {last}; everything is kept. The same command with --resume goes on."
            ) from None
        finally:
            if log is not None:
                log.close()

    def _tower(self) -> Watchtower:
        labelled, name = None, self.o["probe"]
        if name:
            from .plan import Planner

            labelled = Planner(self.catalogue, self.places).index(name)
        self.teacher.device = self.student.device = self.device
        return Watchtower(self.teacher, self.index, self.choice.held_out, labelled, MOST_LABELLED, self.o["seed"])

    def _graduate(self, run: Distillation, facts: dict[str, Any]) -> tuple[dict[str, Any], str]:
        broken = joint.merged(self.batches.broken)
        if not self.first:
            return {}, ""
        recipe, state = self.recipe, run.state
        if broken:
            write_tiles(self.out, self.index.table, self.choice, broken)
        deviations = [*recipe.deviations(), *changed(recipe)]
        if self.o["accumulate"] > 1:
            deviations.append(f"a batch was cut into {self.o['accumulate']} pieces, each with its own batch statistics")
        if self.batches.resized:
            deviations.append(f"tiles smaller than {self.batches.side} px were enlarged to it")
        if self.batches.cut:
            deviations.append(f"of tiles larger than {self.batches.side} px a window of that size was drawn")
        if self.o["control"]:
            deviations.append("a control: the student's own start was the teacher")
        seen = [*dict.fromkeys([*self.student.card.seen, *self.teacher.card.seen])]
        about = {
            **facts,
            "steps": state.step,
            "stopped_early": state.finished and state.step < recipe.options["steps"],
            "deviations": deviations,
            "skipped": [*self.warned, *(f"{k}: {v}" for k, v in broken.items())],
            "seen": seen,
            "licences": self.licences,
            "environment": environment(self.catalogue.distributions()),
        }
        name = name_of(recipe, self.out)
        if self.o["control"]:
            name += "-control"
        write_model(self.out, run.learned.backbone, self.student.card, name, about)
        self._check(run)
        draw_curves(self.out, log_lines(self.out))
        return self._told(run, "")

    def _check(self, run: Distillation) -> None:
        """The model on disk gives what the model in memory gives."""
        import torch

        module, size = run.learned.backbone.eval(), self.student.card.size
        self.student._module = module
        batch = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(self.device)
        again = self.catalogue.model(str(self.out))
        again.device = self.device
        with torch.no_grad():
            ours, theirs = self.student.embed(batch), again.embed(batch)
        ours, theirs = (v if isinstance(v, dict) else {"pooled": v} for v in (ours, theirs))
        for name, value in ours.items():
            if name not in theirs or not torch.allclose(value, theirs[name], atol=1e-4, rtol=1e-3):
                raise ModelError(
                    f"{self.out} does not give back what was learned ({name} differs). Please report this with the card; "
                    "checkpoint.pt holds the weights."
                )

    def _told(self, run: Distillation, remark: str) -> tuple[dict[str, Any], str]:
        state, lines = run.state, log_lines(self.out)
        looks = [x for x in lines if "cka" in x or "knn" in x]
        skipped = [*self.warned, *self.batches.broken]
        fact = {
            "out": str(self.out),
            "model": name_of(self.recipe, self.out) + ("-control" if self.o["control"] else ""),
            "steps": state.step,
            "loss": {"first": state.history[0], "last": state.history[-1]} if state.history else {},
            "probe": {"before": looks[0], "after": looks[-1]} if looks else {},
            "tiles": len(self.choice.rows),
            "slides": self.choice.slides,
            "skipped": skipped,
            "seconds": round(state.seconds, 1),
            "tiles_per_second": round(self.batches.batch * state.step / max(state.seconds, 1e-9), 2),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }
        text = f"{remark + ': ' if remark else ''}{fact['model']}, {state.step} steps"
        if skipped:
            self.say(f"{len(skipped)} remarks or broken tiles, such as {'; '.join(skipped[:5])}")
        if state.history:
            text += f", loss {state.history[0]:.4g} to {state.history[-1]:.4g}"
        if looks and "cka" in looks[0]:
            text += f", CKA to the teacher {looks[0]['cka']:.3f} to {looks[-1]['cka']:.3f}"
        return fact, text + f". bench run --model {shlex.quote(str(self.out))} --suite …"

    def _memory(self, error: Exception) -> Exception:
        """Out of memory is told with the next step; other errors go on as they are."""
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            fewer = max(1, self.batches.batch // (2 * joint.world() * self.o["accumulate"]))
            return ModelError(
                f"Out of memory on {self.device} with {self.batches.batch // joint.world()} tiles a process. --recompute and more "
                "processes (torchrun) go on with --resume; or begin again in another --out with --precision bf16 or "
                f"--batch-size {fewer * joint.world()}."
            )
        if isinstance(error, OSError) and not isinstance(error, EosinError):
            return StoreError(f"{self.out}: {error}. {free_space(self.out)} Make room, then --resume.")
        return error


def _board(out: Path) -> Any:
    """TensorBoard's writer, where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"))
