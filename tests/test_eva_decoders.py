"""eva's decoders, Dice loss, Dice from counts, and crops: golden cases, torchvision, the definition."""

import json

import numpy as np
import pytest

from eosin import metrics
from eosin_eva import crops, dice

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("number", ["01", "02"])
def test_golden_decoders(shared, number):
    from eosin_eva.decoders import ConvDecoderMS, ConvDecoderWithImage

    folder = shared("golden", f"eva-decoder-{number}")
    expected = json.loads((folder / "expected.json").read_text())
    given = {k: torch.from_numpy(v) for k, v in np.load(folder / "input.npz").items()}
    want, shape = (
        np.load(folder / "expected_output.npz"),
        [expected["settings"][k] for k in ("in_features", "num_classes")],
    )

    def decoder(kind, prefix):
        made = kind(*shape)
        made.load_state_dict({k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)})
        return made

    with_image = decoder(ConvDecoderWithImage, "w.")
    assert sum(p.numel() for p in with_image.parameters()) == expected["parameters"]
    with torch.no_grad():
        for name, made in (
            ("eval", with_image.eval()),
            ("train", decoder(ConvDecoderWithImage, "w.").train()),
            ("ms_eval", decoder(ConvDecoderMS, "ms.").eval()),
        ):
            assert np.abs(made(given["features"], given["image"]).numpy() - want[name]).max() < 1e-5, name


def test_the_decoders_are_as_large_as_eva_s():
    from eosin_eva.decoders import ConvDecoderMS, ConvDecoderWithImage

    sizes = [sum(p.numel() for p in kind(768, 5).parameters()) for kind in (ConvDecoderWithImage, ConvDecoderMS)]
    assert sizes == [471_429, 445_317]


def test_golden_dice_loss(shared):
    folder = shared("golden", "eva-diceloss-01")
    given = np.load(folder / "input.npz")
    for name, want in json.loads((folder / "expected.json").read_text())["outputs"].items():
        kind, number = name.rsplit("_", 1) if "_" in name else (name[:-1], name[-1])
        logits = torch.from_numpy(given[f"logits{number}"]).requires_grad_()
        of = {
            "plain": ("target", None),
            "ignore_index_C": ("target_ign", logits.shape[1]),
            "ignore_index_0": ("target", 0),
        }
        column, ignore = of[kind]
        loss = dice.dice_loss(logits, torch.from_numpy(given[f"{column}{number}"]), ignore)
        loss.backward()
        assert loss.item() == pytest.approx(want["loss"], abs=1e-6), name
        assert logits.grad.abs().sum().item() == pytest.approx(want["grad_abs_sum"], rel=1e-5), name
        first = logits.grad.flatten()[:5].tolist()
        assert first == pytest.approx(want["grad_sha_like_first5"], rel=1e-5, abs=1e-8), name


def counted(target, prediction, classes):
    return dice.confusion(torch.from_numpy(target), torch.from_numpy(prediction), classes)


def test_golden_dice_from_counts(shared):
    folder = shared("golden", "eva-dice-01")
    given = np.load(folder / "input.npz")
    out = json.loads((folder / "expected.json").read_text())["outputs"]
    plain = dice.dice_cells(counted(given["target"], given["pred"], 5))
    assert dice.mean_dice(plain) == pytest.approx(out["consep"]["mean"], abs=1e-6)
    assert dice.nanmean(plain, 0) == pytest.approx(out["consep"]["reduction_none_per_class"], abs=1e-6)
    for name, prediction in (("monusac_ignore5", "pred"), ("monusac_ignore5_pred_has_5", "pred_with_5")):
        cells = dice.dice_cells(counted(given["target_with_5"], given[prediction], 6), 5)
        assert dice.mean_dice(cells) == pytest.approx(out[name]["mean"], abs=1e-6)
        for i, image in enumerate(cells):
            assert dice.mean_dice(image[None]) == pytest.approx(out[name][f"image_{i}"], abs=1e-6)


@pytest.mark.parametrize("ignore", [None, 0, 2, 4])
@pytest.mark.parametrize("ignored_by", ["prediction", "target"])
def test_dice_from_counts_is_the_metric(ignore, ignored_by):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 5, (6, 9, 7)) * (rng.random((6, 1, 1)) < 0.7)
    prediction = np.where(rng.random(target.shape) < 0.6, target, rng.integers(0, 5, target.shape))
    prediction[1], target[2] = 0, 0
    cells = dice.dice_cells(counted(target, prediction, 5), ignore, ignored_by)
    rule = {"num_classes": 5, "ignore_index": ignore, "ignored_by": ignored_by}
    assert dice.mean_dice(cells) == pytest.approx(metrics.dice(target, prediction, **rule), abs=1e-12)
    for reduction, axis in (("image", 1), ("class", 0)):
        want = metrics.dice(target, prediction, reduction=reduction, **rule)
        assert dice.nanmean(cells, axis) == pytest.approx(want, abs=1e-12, nan_ok=True)


def test_mean_dice_of_images_without_foreground_is_zero():
    assert dice.mean_dice(np.full((3, 2), np.nan)) == 0.0


@pytest.mark.parametrize("shape", [(90, 70), (40, 300), (300, 40)])
def test_a_crop_is_torchvision_s(shape):
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    from torchvision import tv_tensors

    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    mask = rng.integers(0, 6, shape).astype(np.uint8)
    tensors = tv_tensors.Image(torch.from_numpy(image).movedim(-1, 0)), tv_tensors.Mask(torch.from_numpy(mask))
    for _ in range(10):
        box = crops.random_box(*shape, rng)
        seen, labels = (functional.resized_crop(t, *box, size=[32, 32], antialias=True) for t in tensors)
        assert (crops.crop(image, box, 32) == seen.movedim(0, -1)).all()
        assert (crops.crop(mask, box, 32) == labels).all()


def test_boxes_lie_inside_and_spread_as_they_should():
    rng = np.random.default_rng(2)
    boxes = np.array([crops.random_box(100, 120, rng) for _ in range(2000)])
    top, left, h, w = boxes.T
    assert top.min() >= 0 and left.min() >= 0 and (top + h).max() <= 100 and (left + w).max() <= 120
    share = h * w / 12000
    assert 0.075 < share.min() < 0.1 and share.max() <= 1 and 0.4 < share.mean() < 0.55
    assert 0.72 < (w / h).min() < 0.78 and 1.28 < (w / h).max() < 1.4
    assert crops.random_box(10, 1000, rng) == (0, 493, 10, 13)  # no box of such an area fits: the largest central one
    assert crops.random_box(1000, 10, rng) == (493, 0, 13, 10)
