"""Named readouts from the output of a network: which token is which, in one place for every model."""

from contextlib import contextmanager


@contextmanager
def entering(module):
    """A list that gets what a module is called with, here the last block's tokens as they reach the final norm; empty for None."""
    seen = []
    handle = module and module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        if handle:
            handle.remove()


def of_tokens(tokens, prefix, class_token=True):
    """{cls, mean, grid} of tokens (n, prefix + patches, d), as they come out of the final norm.

    `mean` and `grid` are of patch tokens only: class token and registers are the first `prefix` and never leak into them.
    `grid` (n, d, h, w) is left out where patches make no square.
    """
    patches = tokens[:, prefix:]
    found = {"cls": tokens[:, 0]} if class_token and prefix else {}
    found["mean"] = patches.mean(dim=1)
    side = int(patches.shape[1] ** 0.5)
    if side * side == patches.shape[1]:
        found["grid"] = patches.transpose(1, 2).reshape(len(tokens), -1, side, side)
    return found


def of_map(module, out):
    """{pooled, grid} of a convolutional network's or Swin's last map; `grid` is (n, d, h, w) whatever the order inside."""
    pooled = module.forward_head(out, pre_logits=True).flatten(1)
    last = out.permute(0, 3, 1, 2) if out.ndim == 4 and getattr(module, "output_fmt", "NCHW") == "NHWC" else out
    return {"pooled": pooled, **({"grid": last} if last.ndim == 4 else {})}
