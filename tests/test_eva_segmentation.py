"""eva's segmentation protocols: what decides a run (schedule, patience, splits, crops), and that it learns a known map."""

import numpy as np
import pytest

import eosin
from eosin import metrics
from eosin.errors import DataError, UsageError
from eosin.pixels import Pixels
from eosin_eva import fit_decoder, segmentation
from eosin_eva.fit_decoder import Recipe, fit, judge
from eosin_eva.samples import Crops, Squares, normalised
from eosin_eva.segmentation import EvaSegmentation, EvaSegmentation04, EvaSegmentationOffline

torch = pytest.importorskip("torch")

SIZE, GRID, DIM, CLASSES = 40, 10, 16, ("background", "red", "blue", "unsure")
FAST = {"runs": 2, "max_steps": 24, "batch_size": 4, "ignore": 3}
CPU = torch.device("cpu")


def tissue(rng, height=SIZE, width=SIZE):
    """An image whose colours say its mask: blocks of background, red and blue, with a corner labelled 3 (unsure)."""
    mask = np.kron(rng.integers(0, 3, (-(-height // 8), -(-width // 8))), np.ones((8, 8), int))[:height, :width]
    image = np.array([[230, 225, 230], [200, 40, 60], [40, 60, 200]])[mask] + rng.integers(-15, 15, (height, width, 3))
    mask[:6, :6] = 3
    return image.astype(np.uint8), mask


def grids(images):
    """(n, DIM, GRID, GRID) of (n, S, S, 3) uint8: mean colours of patches through a fixed matrix."""
    x = torch.from_numpy(np.asarray(images, np.float32)).movedim(-1, 1) / 255
    cells = torch.nn.functional.adaptive_avg_pool2d(x, GRID)
    mix = torch.from_numpy(np.random.default_rng(0).standard_normal((DIM, 3)).astype(np.float32))
    return torch.einsum("dc,nchw->ndhw", mix, cells)


def made(n=20, splits=("train", "val"), shape=(SIZE, SIZE), embed=True, seed=0, classes=CLASSES):
    rng = np.random.default_rng(seed)
    pairs = [tissue(rng, *shape) for _ in range(n)]
    seen = []

    def model(images):
        seen.append(len(images))
        assert images.dtype == np.uint8 and images.shape[1:] == (SIZE, SIZE, 3)
        return grids(images)

    images, masks = ([p[k] for p in pairs] for k in (0, 1))
    pixels = Pixels(
        images.__getitem__,
        masks.__getitem__,
        model if embed else None,
        (0.7, 0.5, 0.7),
        (0.2, 0.3, 0.2),
        SIZE,
        np.arange(n),
    )
    X = grids(pixels.square(range(n))[0]).numpy()
    split = np.array([splits[i * len(splits) // n] for i in range(n)])
    emb = eosin.Embeddings(X, np.array([f"t{i}" for i in range(n)]), split=split, classes=classes, pixels=pixels)
    return emb, seen


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    """The same numbers on machines with a GPU."""
    monkeypatch.setattr(segmentation, "_device", lambda: CPU)


def test_it_learns_a_map_and_says_what_it_did():
    emb, seen = made()
    found = EvaSegmentation().score(emb, **FAST)
    assert len(found.metrics["dice"]) == 2 and min(found.metrics["dice"]) > 0.7
    assert not seen and any("none" in note for note in found.notes)  # stored grids: the model is never asked
    assert any("val, also chose the checkpoint" in note for note in found.notes)
    images, classes = found.details["dice_per_image"], found.details["dice_per_class"]
    assert images.shape == (2, 10) and classes.shape == (2, 2) and found.details["classes"].tolist() == ["red", "blue"]
    assert found.metrics["dice"] == pytest.approx(np.nanmean(images, axis=1).tolist())
    p = found.predictions
    assert p["id"].tolist() == [f"t{i}" for i in range(10, 20)] * 2
    assert p["seed"].tolist() == [0] * 10 + [1] * 10
    assert (p["dice"] == images.ravel()).all() and not p["fold"].any()
    again = EvaSegmentation().score(emb, **FAST)
    assert again.metrics == found.metrics and found.metrics["dice"][0] != found.metrics["dice"][1]


def test_the_offline_decoder_sees_no_image():
    emb, _ = made(embed=False)
    found = EvaSegmentationOffline().score(emb, **{**FAST, "max_steps": 60})
    assert min(found.metrics["dice"]) > 0.6
    noise = np.random.default_rng(9).integers(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8)
    blind = EvaSegmentationOffline().score(
        eosin.Embeddings(
            emb.X,
            emb.id,
            split=emb.split,
            classes=emb.classes,
            pixels=Pixels(noise.__getitem__, emb.pixels.mask, None, (0, 0, 0), (1, 1, 1), SIZE, np.arange(20)),
        ),
        **{**FAST, "max_steps": 60},
    )
    assert blind.metrics == found.metrics


def test_crops_are_embedded_once_an_image_epoch_and_run():
    emb, seen = made(shape=(50, 60))
    found = EvaSegmentation().score(emb, **{**FAST, "augment": "random-crop", "max_steps": 12})
    epochs = found.details["epochs"]
    assert epochs.tolist() == [4, 4]  # 10 training images, 3 steps an epoch
    assert sum(seen) == 10 * epochs.sum() and max(seen) == 4
    assert any(f"training: {sum(seen)}, one crop an image, epoch and run" in note for note in found.notes)


def test_crops_need_the_model():
    emb, _ = made(embed=False)
    with pytest.raises(UsageError, match="augment=none"):
        EvaSegmentation().score(emb, **FAST, augment="random-crop")


def test_val_chooses_and_test_is_reported_where_both_are():
    emb, _ = made(n=24, splits=("train", "val", "test"))
    found = EvaSegmentation().score(emb, **{**FAST, "runs": 1})
    assert found.predictions["id"].tolist() == [f"t{i}" for i in range(16, 24)]
    assert "chosen on val, and test is reported" in found.notes[0]
    emb, _ = made(n=12, splits=("train", "test"))
    assert "The reported split, test, also chose" in EvaSegmentation().score(emb, **{**FAST, "runs": 1}).notes[0]


def test_the_ignored_label_costs_what_is_predicted_there_as_in_eva():
    emb, _ = made()
    eva, fair = (EvaSegmentation().score(emb, **FAST, ignored_by=rule) for rule in ("prediction", "target"))
    assert fair.details["dice_per_image"].mean() > eva.details["dice_per_image"].mean()


def test_without_ignore_every_class_has_an_output():
    emb, _ = made()
    found = EvaSegmentation().score(emb, **{**FAST, "ignore": None, "runs": 1})
    assert found.details["dice_per_class"].shape == (1, 3)
    unnamed, _ = made(classes=())
    assert EvaSegmentation().score(unnamed, **{**FAST, "runs": 1}).details["classes"].tolist() == ["class 1", "class 2"]


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"classes": CLASSES[:3]}, DataError, "masks hold 3.*Name every class"),
        ({"X": np.zeros((20, DIM), np.float32)}, DataError, "needs grids"),
        ({"pixels": None}, DataError, "needs the images and masks"),
        ({"split": None}, DataError, "no split"),
        ({"X": np.full((20, DIM, GRID, GRID), np.nan, np.float32)}, DataError, "NaN or Inf in rows 0"),
    ],
)
def test_what_cannot_be_scored(change, error, words):
    import dataclasses

    emb, _ = made()
    with pytest.raises(error, match=words):
        EvaSegmentation().score(dataclasses.replace(emb, **change), **{**FAST, "ignore": None})


def test_options_below_one():
    with pytest.raises(UsageError, match="runs=0"):
        EvaSegmentation().score(made()[0], runs=0)


def recipe(**change):
    given = {"era": "2024-12", "lr": 2e-3, "weight_decay": 0.01, "batch_size": 4, "max_steps": 24, "patience": 99}
    return Recipe(**{**given, "num_classes": 3, "ignore": 3, **change})


@pytest.mark.parametrize("era", fit_decoder.ERAS)
def test_the_schedules_are_torch_s_stepped_once_an_epoch(era):
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    kind = torch.optim.lr_scheduler
    schedule = kind.ConstantLR(optimiser) if era == "0.4" else kind.PolynomialLR(optimiser, total_iters=2000, power=0.9)
    for epoch in range(286):
        assert recipe(era=era, max_steps=2000).rate(epoch) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        schedule.step()


def parts(emb):
    rows = [np.flatnonzero(emb.split == name) for name in ("train", "val")]
    return [Squares(emb.X, r, emb.pixels[r], CPU) for r in rows]


def fitted(monkeypatch, curve, **change):
    """A fit whose validation Dice is given epoch by epoch."""
    left = list(curve)
    monkeypatch.setattr(fit_decoder, "mean_dice", lambda cells: left.pop(0))
    train, val = parts(made(n=8)[0])
    decoder = segmentation._start("ConvDecoderMS", DIM, 3, 42, CPU)
    return fit(decoder, train, val, recipe(**change), np.random.default_rng(0)), decoder


def test_patience_counts_epochs_since_the_best_and_the_first_best_stays(monkeypatch):
    checkpoint, decoder = fitted(monkeypatch, [0.1, 0.5, 0.4, 0.5, 0.3, 0.9], patience=3)
    assert (checkpoint.epoch, checkpoint.dice, checkpoint.epochs) == (1, 0.5, 5)
    same = [torch.equal(v, checkpoint.state[k]) for k, v in decoder.state_dict().items()]
    assert not all(same)  # the decoder went on; the checkpoint did not


@pytest.mark.parametrize("steps, epochs", [(24, 24), (1, 1)])
def test_epochs_are_whole(monkeypatch, steps, epochs):
    assert fitted(monkeypatch, np.arange(99), max_steps=steps)[0].epochs == epochs
    assert fitted(monkeypatch, np.arange(99), max_steps=7, batch_size=3)[0].epochs == 3  # 2 steps an epoch
    assert fitted(monkeypatch, np.arange(99), max_steps=1, batch_size=3)[0].epochs == 1  # cut short, yet validated


def test_judging_is_the_metric_over_all_images():
    train, _ = parts(made(n=12)[0])
    decoder = segmentation._start("ConvDecoderWithImage", DIM, 3, 0, CPU).eval()
    cells = judge(decoder, train, recipe())
    image = normalised(train.image, train.pixels, CPU)
    with torch.no_grad():
        predicted = decoder(torch.from_numpy(train.X[train.rows]), image).argmax(1)
    want = metrics.dice(train.mask, predicted, 4, ignore_index=3, reduction="image")
    assert np.nanmean(cells, axis=1) == pytest.approx(want)


def test_every_run_starts_from_the_same_weights_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    one = segmentation._start("ConvDecoderMS", DIM, 3, 42, CPU).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    two = segmentation._start("ConvDecoderMS", DIM, 3, 42, CPU).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_batches_keep_grid_image_and_mask_together():
    emb, _ = made(n=10)
    train, _ = parts(emb)
    mean, std = (np.array(v, np.float32) for v in (emb.pixels.mean, emb.pixels.std))
    rows = []
    for features, image, mask in train.batches(2, np.random.default_rng(3)):
        back = np.rint((image.movedim(1, -1).numpy() * std + mean) * 255).astype(np.uint8)
        assert np.allclose(grids(back), features, atol=1e-5)
        rows += [next(i for i in range(5) if (emb.pixels.mask(i) == m.numpy()).all()) for m in mask]
    assert sorted(rows) == list(range(5)) and rows != list(range(5))


@pytest.mark.parametrize("kept", [2**31, 0])
def test_crops_show_fresh_parts_of_every_image(monkeypatch, kept):
    from eosin_eva import samples

    monkeypatch.setattr(samples, "KEPT", kept)
    emb, _ = made(n=6, shape=(45, 60))
    crops = Crops(emb.pixels, CPU)
    rng = np.random.default_rng(0)
    epochs = [torch.cat([mask for _, _, mask in crops.batches(4, rng)]) for _ in range(2)]
    assert [len(e) for e in epochs] == [6, 6] and crops.passes == 12 and not torch.equal(*epochs)
    assert set(torch.cat(epochs).unique().tolist()) <= {0, 1, 2, 3}
    for features, image, _ in crops.batches(4, rng):
        mean, std = (np.array(v, np.float32) for v in (emb.pixels.mean, emb.pixels.std))
        back = np.rint((image.movedim(1, -1).numpy() * std + mean) * 255).astype(np.uint8)
        assert np.allclose(grids(back), features, atol=1e-5)


def test_the_eras_differ_by_schedule_and_patience():
    old, new = EvaSegmentation().card, EvaSegmentation04().card
    assert (old.name, new.name) == ("eva-segmentation-2024-12@1", "eva-segmentation-0.4@1")
    assert {k for k in old.options if old.options[k] != new.options[k]} == {"patience"}
    assert (EvaSegmentation.era, EvaSegmentation04.era) == ("2024-12", "0.4")
    emb, _ = made(n=8)
    warm, late = (EvaSegmentationOffline().score(emb, **{**FAST, "max_steps": 3}, era=era) for era in fit_decoder.ERAS)
    assert warm.metrics != late.metrics


def test_a_user_s_own_card_from_tiles_and_masks_to_a_record(home):
    """`bench run` with crops that the model embeds, on tiles.csv with path, mask and split."""
    import json

    from PIL import Image

    from helpers import bench, write_table

    root, rng, rows = home / "data" / "nuclei", np.random.default_rng(0), []
    root.mkdir(parents=True)
    for i in range(6):
        image, mask = tissue(rng, 60, 50)
        Image.fromarray(image).save(root / f"{i}.png")
        Image.fromarray((mask % 3).astype(np.uint8)).save(root / f"{i}-mask.png")
        rows.append({"path": f"{i}.png", "mask": f"{i}-mask.png", "split": "val" if i > 3 else "train"})
    write_table(root, rows)
    (home / "registry.yaml").write_text(
        "datasets: {nuclei: {kind: manifest, mpp: 0.25, classes: [background, red, blue]}}\n"
        "benchmarks: {nuclei-dice: {dataset: nuclei, protocol: eva-segmentation-0.4@1, metric: dice, geometry: '160',\n"
        "  options: {runs: 2, max_steps: 2, batch_size: 4, augment: random-crop}}}\n"
    )
    done = bench("run", "--model", "timm:test_vit", "--benchmark", "nuclei-dice", "--json")
    assert done.code == 0, done
    record = json.loads(open(done.json["records"][0]).read())
    assert len(record["scores"]["dice"]["values"]) == 2 and record["dataset"]["classes"] == [
        "background",
        "red",
        "blue",
    ]
    assert any("Forward passes while training: 16," in note for note in record["notes"])  # 4 images, 2 epochs, 2 runs
    assert np.shape(record["details"]["dice_per_image"]) == (2, 2)


def test_score_reads_grids_images_and_masks_of_a_file(tmp_path):
    from helpers import bench

    emb, _ = made(n=8)
    image, mask = emb.pixels.square(range(8))
    given = {"X": emb.X, "image": image, "mask": mask, "split": emb.split, "classes": np.array(CLASSES)}
    np.savez(tmp_path / "grids.npz", **given)
    options = [f"--option={k}={v}" for k, v in FAST.items()]
    done = bench(
        "score", "--protocol", "eva-segmentation-offline@1", "--embeddings", tmp_path / "grids.npz", *options, "--json"
    )
    assert done.code == 0, done
    assert len(done.json["scores"]["dice"]["values"]) == 2
