"""Teacher and student looked at once, to make the module that is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eosin.errors import NotApplicable, UsageError
from eosin.recipe import vector

if TYPE_CHECKING:
    import torch

    from eosin.extractor import FeatureExtractor


def make(recipe: Any, teacher: FeatureExtractor, student: FeatureExtractor) -> tuple[Any, Any, list[str]]:
    """The module, the student's grid of patches (h, w; None without iBOT), and what is not as the paper has it.

    Raises:
        NotApplicable: a model has no patch tokens, and the recipe needs them. UsageError: a model does not take the size
            of a view, or the file of heads is not one.
    """
    from .student import Student

    o, name = recipe.options, recipe.card.name
    notes: list[str] = []
    theirs = look(teacher, o["global_size"], "Choose global_size for the teacher.")
    ours = look(student, o["global_size"], "Choose global_size for the student.")
    if o["local_crops"]:
        look(
            student,
            o["local_size"],
            "Local crops need a student that takes images of any size: give its card `arch_options: {dynamic_img_size: true}`"
            " and a local_size that its patches divide, or set local_crops=0.",
        )
    dino = objective(recipe, "dino", vector(ours).shape[1], vector(theirs).shape[1], notes)
    ibot, grid = None, None
    if recipe.patches:
        for model, out in ((teacher, theirs), (student, ours)):
            if "grid" not in out:
                raise NotApplicable(
                    f"{name} compares patch tokens, and {model.card.name} gives none: only {', '.join(out)}. Use rob-dino, "
                    "which compares class tokens alone, g2l, or another model."
                )
        grid, seen = tuple(ours["grid"].shape[-2:]), tuple(theirs["grid"].shape[-2:])
        if grid != seen:
            notes.append(
                f"The teacher's {seen[0]} x {seen[1]} patch tokens are interpolated (bilinear) to the student's "
                f"{grid[0]} x {grid[1]}."
            )
        ibot = objective(recipe, "ibot", ours["grid"].shape[1], theirs["grid"].shape[1], notes)
    return Student(student, dino, ibot, o["global_size"], recipe.masked), grid, notes


def look(model: FeatureExtractor, side: int, step: str) -> Any:
    """The model's readouts of one black square, to learn their shapes."""
    import torch

    from .student import named

    with torch.no_grad():
        try:
            return named(model.embed(torch.zeros(1, 3, side, side, device=model.device)))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"{model.card.name} does not take views of {side} pixels ({str(error).splitlines()[0]}). {step}"
            ) from error


def objective(recipe: Any, part: str, dim: int, teacher_dim: int, notes: list[str]) -> torch.nn.Module:
    """`dino` or `ibot`, by the recipe's teacher head, for tokens of these widths."""
    from .heads import Head, head_of, read_heads
    from .objectives import Constants, Regression, WithHead, WithLearnedHead, WithPrototypes

    o, kind = recipe.options, recipe.kind
    if kind == "regression":
        return Regression(dim, teacher_dim, o["regression"], o["alpha"])
    constants = Constants(o["student_temperature"], o["centre_momentum"], o["chunk"])
    shape = (o["hidden"], o[f"{part}_bottleneck"])
    if kind == "prototypes":
        count = o["class_prototypes" if part == "dino" else "patch_prototypes"]
        return WithPrototypes(Head(dim, count, *shape), constants, teacher_dim, o["fit_rounds"])
    if kind == "learned":
        return WithLearnedHead(
            Head(dim, o["prototypes"], *shape), constants, Head(teacher_dim, o["prototypes"], *shape)
        )
    taught = head_of(read_heads(recipe.file)[part], teacher_dim)
    count = len(taught.direction)
    if count != o["prototypes"]:
        notes.append(
            f"The teacher's {part} head has {count:,} prototypes, not {o['prototypes']:,}; so has the student's."
        )
    return WithHead(Head(dim, count, *shape), constants, taught)
