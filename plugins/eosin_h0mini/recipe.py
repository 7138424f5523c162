"""H0-mini (arXiv:2501.16239) and the two recipes that it builds on, RoB-DINO and RoB-iBOT (Duval et al., arXiv:2301.09451)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eosin.cards import RecipeCard
from eosin.errors import UsageError
from eosin.recipe import DistillationRecipe, vector

from . import options, schedules

if TYPE_CHECKING:
    import torch

    from eosin.extractor import FeatureExtractor

    Readouts = Mapping[str, torch.Tensor]

KINDS = ("regression", "prototypes", "learned", "path")
TEACHER, STUDENT = "h-optimus-0", "vit_base_patch14_reg4_dinov2"  # of H0-mini's paper, whose numbers are all defaults
SEED = 0  # of the patches that are drawn for a fit


class Rob(DistillationRecipe):
    """A frozen teacher in one branch of DINO and iBOT, a student in the other.

    L_dino is the mean of H over all pairs of a global view of the teacher and another view of the student; L_ibot the mean
    of H over the patches of a global view, the same for both. Two heads, softmax centring, no KoLeo.
    """

    teacher_views: int = 2
    patches = True
    masked = False

    def __init__(self, card: RecipeCard | None = None, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(card, options)
        self.kind, _, self.file = self.options["teacher_head"].partition(":")
        if self.kind not in KINDS or (self.kind == "path") != bool(self.file):
            raise UsageError(
                f"{self.card.name}: teacher_head={self.options['teacher_head']} is not one of path:FILE, prototypes, "
                "learned, regression."
            )
        longest = max(self.options[k] for k in ("warmup_epochs", "temperature_epochs", "freeze_epochs"))
        if longest >= self.options["epochs"]:
            raise UsageError(
                f"{self.card.name}: a warm-up of {longest:g} epochs is not shorter than the run of "
                f"{self.options['epochs']:g}. Raise epochs, or lower the warm-up."
            )
        if self.options["chunk"] < 1:
            raise UsageError(f"{self.card.name}: chunk={self.options['chunk']} tokens at a time. Give 1 or more.")
        for low in (n for n in self.options if n.endswith("_low")):
            high = f"{low.removesuffix('_low')}_high"
            if not 0 <= self.options[low] <= self.options[high]:
                raise UsageError(
                    f"{self.card.name}: {low}={self.options[low]} and {high}={self.options[high]} are no range. Correct them."
                )
        self.notes: list[str] = []
        self.hidden: list[torch.Tensor] = []

    @property
    def variant(self) -> str:
        """What a model of this run may be called: the recipe's plain name only with the teacher's own heads."""
        return self.card.name if self.kind == "path" else f"{self.card.name}-{self.kind}"

    def student(self, teacher: FeatureExtractor, student: FeatureExtractor) -> torch.nn.Module:
        from .make import make

        self.module, self.grid, notes = make(self, teacher, student)
        t, s = teacher.card, student.card
        other = [] if t.name == TEACHER else [f"The teacher is {t.name}; the paper's is {TEACHER}."]
        other += [] if s.arch == STUDENT else [f"The student is {s.name} ({s.arch}); the paper's is a {STUDENT}."]
        self.notes = [*notes, *other]
        return self.module

    def views(self, tiles: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        from .views import masks, views

        found = views(tiles, self.options, generator)
        if self.masked:
            self.hidden = [masks(len(tiles), self.grid, self.options, generator).to(tiles.device) for _ in range(2)]
            self.module.masks = list(self.hidden)
        return found

    def loss(self, teacher: Sequence[Readouts], student: Sequence[Readouts], step: int) -> torch.Tensor:
        at, module, o = self.moment(step), self.module, self.options
        taught = [_usable(vector(t)) for t in teacher]
        learned = [s["dino"] for s in student]
        rows = [x.new_full((len(x),), 1 / len(x)) for x in learned]
        pairs = [(i, j) for i in range(len(taught)) for j in range(len(learned)) if i != j]
        value = o["dino_weight"] * module.dino.loss(taught, learned, pairs, rows, at)
        if module.ibot is None:
            return value
        same = [(i, i) for i in range(len(teacher))]
        taught, learned = self._tokens(teacher, student)
        return value + o["ibot_weight"] * module.ibot.loss(taught, learned, same, self._rows(student), at)

    def moment(self, step: int) -> Any:
        """What the objectives need to know of a step."""
        from .objectives import Moment

        return Moment(
            schedules.teacher_temperature(self.options, step),
            step < schedules.in_steps(self.options, self.options["freeze_epochs"]),
            schedules.memory(self.options, step),
        )

    def _tokens(self, teacher: Sequence[Readouts], student: Sequence[Readouts]) -> tuple[list[Any], list[Any]]:
        """Patch tokens (tokens, d) of the global views: all, or the hidden ones."""
        from .student import patches

        views = range(len(teacher))
        taught = [_usable(patches(t, self.grid)) for t in teacher]
        learned = [student[i]["ibot"] for i in views]
        if not self.masked:
            return [t.flatten(0, 1) for t in taught], [s.flatten(0, 1) for s in learned]
        where = [mask.flatten(1) for mask in self.hidden]
        return [taught[i][where[i]] for i in views], [learned[i][where[i]] for i in views]

    def _rows(self, student: Sequence[Readouts]) -> list[torch.Tensor]:
        """What each of these counts: one over the tiles and the tile's tokens."""
        first = student[0]["ibot"]
        n, tokens = first.shape[:2]
        if not self.masked:
            return [first.new_full((n * tokens,), 1 / (n * tokens))] * self.teacher_views
        masks = [mask.flatten(1) for mask in self.hidden]
        counts = [m.sum(dim=1, keepdim=True).clamp(min=1).expand_as(m)[m] for m in masks]
        return [1 / (n * c.to(first.dtype)) for c in counts]

    def schedule(self, step: int) -> dict[str, float]:
        return schedules.values(self.options, step)

    def prepare(self, module: torch.nn.Module, taught: Callable[[int], Iterator[Readouts]]) -> None:
        """Fits prototypes, or the mean token that is taken off, to tokens of the teacher; its own heads need neither."""
        import torch

        from eosin.augment import uniform

        from .prototypes import gathered
        from .student import patches

        if self.kind == "path":
            return
        of_classes, of_patches, generator = [], [], torch.Generator().manual_seed(SEED)
        for readouts in taught(self.options["fit_tiles"]):
            of_classes.append(gathered(_usable(vector(readouts))))
            if module.ibot is not None:
                tokens = _usable(patches(readouts, self.grid))
                some = uniform(generator, *tokens.shape[:2]).argsort(dim=1)[:, : self.options["fit_patches"]]
                drawn = tokens.gather(1, some.to(tokens.device)[:, :, None].expand(-1, -1, tokens.shape[2]))
                of_patches.append(gathered(drawn).flatten(0, 1))
        if of_classes:
            module.dino.fit(torch.cat(of_classes))
        if of_patches:
            module.ibot.fit(torch.cat(of_patches))

    def groups(self, module: torch.nn.Module) -> list[dict[str, Any]]:
        from .groups import groups

        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        return groups(named, self.options["layer_decay"], self.options["patch_embed_lr"])

    def deviations(self) -> list[str]:
        clipped = "The gradient is clipped by its norm over backbone and heads together; DINOv2 clips each by its own."
        if self.kind == "path":
            return [*self.notes, clipped]
        replaced = f"The teacher's heads, which are not public, are replaced by {WORDS[self.kind]}"
        return [f"{replaced}: this is {self.variant}, not {self.card.name}.", *self.notes, clipped]


WORDS = {
    "regression": "a regression of its tokens",
    "prototypes": "prototypes that k-means found among its tokens",
    "learned": "heads that are learned during the run",
}


def _usable(x: torch.Tensor) -> torch.Tensor:
    """Float32 at least, and such that autograd may keep it, though the teacher ran in inference mode."""
    import torch

    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x.clone() if x.is_inference() else x


class H0Mini(Rob):
    card = RecipeCard(
        "h0-mini",
        options=options.BOTH,
        paper="Filiot et al. 2025, arXiv:2501.16239",
        description="DINO on class tokens and iBOT on all patch tokens of two global views, with the teacher's heads; nothing is hidden.",
    )


class RobDino(Rob):
    patches = False
    card = RecipeCard(
        "rob-dino",
        options=options.DINO,
        paper="Duval et al. 2023, arXiv:2301.09451",
        description="DINO on class tokens alone, with H0-mini's numbers.",
    )


class RobIbot(Rob):
    masked = True
    card = RecipeCard(
        "rob-ibot",
        options=options.MASKED,
        paper="Duval et al. 2023, arXiv:2301.09451",
        description="DINO, and iBOT on the patches that are hidden from the student and not from the teacher, with H0-mini's numbers.",
    )
