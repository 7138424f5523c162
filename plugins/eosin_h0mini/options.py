"""Every number of the recipes as a named option: H0-mini's Table 4, DINOv2's where the paper gives none."""

from __future__ import annotations

from eosin.cards import Option

RUN = {
    "steps": Option(105_000, doc="Steps of the optimiser, and the horizon of the schedules (Table 4)."),
    "batch_size": Option(2048, doc="Tiles a step, over all processes (Table 4)."),
    "epochs": Option(
        84.0, float, "What the steps count as: an epoch is steps / epochs, DINOv2's 1,250 at the paper's 105,000."
    ),
    "lr": Option(0.004, doc="Learning rate at a batch of 1,024; it grows with the root of the batch (DINOv2)."),
    "min_lr": Option(1e-6, doc="Learning rate at the end of the cosine (DINOv2)."),
    "warmup_epochs": Option(16.0, doc="Epochs in which the learning rate rises from 0 (Table 4)."),
    "weight_decay": Option(0.04, doc="Weight decay at the first step (DINOv2)."),
    "weight_decay_end": Option(0.4, doc="Weight decay at the last, by a cosine (Table 4)."),
    "clip": Option(3.0, doc="Largest norm of the gradient (DINOv2; there of each part, here of the whole)."),
    "layer_decay": Option(0.9, doc="How much slower each layer learns than the one above it (DINOv2)."),
    "patch_embed_lr": Option(0.2, doc="How much slower still the patch embedding learns (DINOv2)."),
    "ema": Option(0.992, doc="What the student's moving average keeps of itself, at the first step (DINOv2)."),
    "ema_end": Option(1.0, doc="The same at the last step, by a cosine (DINOv2)."),
    "released": Option(
        "ema", ("ema", "student"), "What is left at the end; the paper keeps both and does not say which."
    ),
}

HEADS = {
    "teacher_head": Option(
        "regression",
        doc="What the teacher's tokens are scored with: `path:FILE` (its own heads), `prototypes` (k-means on its tokens), "
        "`learned` (a head learned during the run), `regression` (none: the student regresses the tokens).",
    ),
    "prototypes": Option(131_072, doc="Prototypes of each head that is learned (Table 4); a file has its own number."),
    "hidden": Option(2048, doc="Width of the heads' two hidden layers (DINOv2)."),
    "dino_bottleneck": Option(384, doc="Width of the DINO head's bottleneck (Table 4)."),
    "dino_weight": Option(1.0, doc="Weight of the DINO objective."),
    "freeze_epochs": Option(1.0, doc="Epochs in which the heads' last layers stand still (DINOv2)."),
    "student_temperature": Option(0.1, doc="Temperature of the student's softmax (DINOv2)."),
    "teacher_temperature": Option(0.04, doc="Temperature of the teacher's softmax at the first step (DINOv2)."),
    "teacher_temperature_end": Option(0.07, doc="The same after the warm-up (DINOv2)."),
    "temperature_epochs": Option(30.0, doc="Epochs of this warm-up (Table 4)."),
    "centre_momentum": Option(0.9, doc="What the centre of the teacher's scores keeps of itself a step (DINOv2)."),
    "chunk": Option(256, doc="Tokens whose scores are held at once; changes memory and speed, not the result."),
    "regression": Option(
        "cosine", ("cosine", "log-sum"), "For teacher_head=regression: 1 - cosine, or G2L's logarithm of a sum."
    ),
    "alpha": Option(4.0, doc="For regression=log-sum: the power of the differences (G2L)."),
    "fit_tiles": Option(4096, doc="Tiles on which prototypes and the teacher's mean token are fitted."),
    "class_prototypes": Option(1024, doc="For teacher_head=prototypes: how many for class tokens."),
    "fit_rounds": Option(20, doc="For teacher_head=prototypes: rounds of k-means."),
}

PATCHES = {
    "ibot_bottleneck": Option(256, doc="Width of the iBOT head's bottleneck (Table 4)."),
    "ibot_weight": Option(1.0, doc="Weight of the iBOT objective."),
    "patch_prototypes": Option(4096, doc="For teacher_head=prototypes: how many for patch tokens."),
    "fit_patches": Option(16, doc="Patch tokens a tile that are drawn for the fit."),
}

MASKS = {
    "mask_probability": Option(0.5, doc="Share of the views of which the student sees a part only (iBOT)."),
    "mask_low": Option(0.1, doc="Smallest share of patches that is hidden (iBOT)."),
    "mask_high": Option(0.5, doc="Largest share of patches that is hidden (iBOT)."),
    "mask_shape": Option("block", ("block", "random"), "Rectangles, or single patches anywhere (iBOT: block)."),
    "regression": Option("cosine", ("cosine",), "For teacher_head=regression: 1 - cosine of the hidden patches."),
}

VIEWS = {
    "global_size": Option(224, doc="Side of the two global views, in pixels."),
    "global_scale": Option(0.32, doc="Smallest share of a tile that a global view shows; the largest is all (DINOv2)."),
    "local_crops": Option(
        0, doc="Small views that only the student sees. The paper's L_dino has two views; DINOv2 adds 8."
    ),
    "local_size": Option(98, doc="Side of the small views: DINOv2's 96, as patches of 14 pixels allow."),
    "local_low": Option(0.05, doc="Smallest share of a tile that a small view shows (DINOv2)."),
    "local_high": Option(0.32, doc="Largest share of a tile that a small view shows (DINOv2)."),
    "flip": Option(0.5, doc="Probability of a mirror image, left and right (DINOv2)."),
    "jitter": Option(0.8, doc="Probability of a change of colours (DINOv2)."),
    "brightness": Option(0.4, doc="Its largest change of brightness (DINOv2)."),
    "contrast": Option(0.4, doc="Its largest change of contrast (DINOv2)."),
    "saturation": Option(0.2, doc="Its largest change of saturation (DINOv2)."),
    "hue": Option(0.1, doc="Its largest turn of the hue, of a circle (DINOv2)."),
    "grey": Option(0.2, doc="Probability of a view without colour (DINOv2)."),
    "blur_first": Option(1.0, doc="Probability of a blur of the first global view (DINOv2)."),
    "blur_second": Option(0.1, doc="Of the second (DINOv2)."),
    "blur_local": Option(0.5, doc="Of the small ones (DINOv2)."),
    "blur_kernel": Option(9, doc="Pixels a side of the blur's kernel (DINOv2)."),
    "sigma_low": Option(0.1, doc="Smallest sigma of a blur, in pixels (DINOv2)."),
    "sigma_high": Option(2.0, doc="Largest sigma of a blur, in pixels (DINOv2)."),
    "solarise": Option(0.2, doc="Probability that the second global view's bright values are turned over (DINOv2)."),
}

DINO = {**RUN, **HEADS, **VIEWS}
BOTH = {**DINO, **PATCHES}
MASKED = {**BOTH, **MASKS}
