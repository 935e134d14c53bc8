import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader

from drywall_seg.data.dataset import PromptedDataset, draw_prompt
from drywall_seg.data.manifest import Manifest, build_manifest
from drywall_seg.images import PAD_VALUE, ImageError
from drywall_seg.prompts import ABSENT_THINGS, LABELS, PROMPTS
from tests.data.exports import annotation, image, write_coco, write_export

SIZE = 64
PLAIN = {"image_size": SIZE, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # pixel_values are in [0, 1]
LABEL_OF = {prompt: label for label, prompts in PROMPTS.items() for prompt in prompts}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Photos in three shapes, black but for a red blob that is exactly the mask; crack, taping area, joint line."""
    root = tmp_path_factory.mktemp("dataset")
    sizes = [(90, 90), (60, 120), (130, 50), (40, 41), (64, 64), (200, 30)]
    for name, first in (("cracks.coco", 0), ("Drywall-Join-Detect.coco", 10)):
        folder = root / "in" / name / "train"
        folder.mkdir(parents=True)
        images, items = [], []
        for i, (height, width) in enumerate(sizes):
            images.append(image(first + i, f"{first + i}.png", (height, width)))
            box = (width // 4, height // 3, width // 2 - i, height // 2)
            items.append(annotation(first + i, first + i, bbox=box))
            canvas = Image.new("RGB", (width, height))
            canvas.paste((255, 0, 0), (box[0], box[1], box[0] + box[2], box[1] + box[3]))
            canvas.save(folder / f"{first + i}.png")
        write_coco(folder / "_annotations.coco.json", images, items)
    made = build_manifest(root / "in", root / "manifest", "publisher")
    joints = made.table[made.table.label == "taping_area"].assign(label="joint_line")
    return dataclasses.replace(made, table=made.table.merge(joints, how="outer"))


def samples_of(dataset):
    return [dataset[i] for i in range(len(dataset))]


def equal(first, second):
    return first["prompt"] == second["prompt"] and all(
        np.array_equal(first[key], second[key]) for key in ("pixel_values", "target", "valid")
    )


# --- What a sample is


def test_a_sample_has_these_shapes_types_and_ranges(manifest):
    dataset = PromptedDataset(manifest, "train", SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 1, 0.5, 0.5, 0.3)
    assert len(dataset) == len(manifest.rows("train")) == 18
    for sample in samples_of(dataset):
        assert {key: (getattr(v, "shape", None), str(getattr(v, "dtype", ""))) for key, v in sample.items()} == {
            "pixel_values": ((3, SIZE, SIZE), "float32"),
            "target": ((SIZE, SIZE), "float32"),
            "valid": ((SIZE, SIZE), "bool"),
            "prompt": (None, ""),
        }
        assert abs(sample["pixel_values"]).max() <= 2 and 0 <= sample["target"].min() <= sample["target"].max() <= 1
    assert len(PromptedDataset(manifest, "val", **PLAIN)) == 0


def test_pixel_values_are_normalised_by_channel(manifest):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    plain = PromptedDataset(manifest, "train", **PLAIN)[1]["pixel_values"]
    normalised = PromptedDataset(manifest, "train", SIZE, mean, std)[1]["pixel_values"]
    expected = (plain - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert np.allclose(normalised, expected, atol=1e-5)


@pytest.mark.parametrize("crop_min", [1.0, 0.4])
def test_image_and_mask_are_augmented_alike(manifest, crop_min):
    dataset = PromptedDataset(manifest, "train", **PLAIN, crop_min=crop_min)
    shapes, seen = set(), 0
    for dataset.epoch in range(8):
        for sample in samples_of(dataset):
            red, valid = sample["pixel_values"][0], sample["valid"]
            # Photo and mask are resized alike, so that red is the target's share of each pixel, borders included.
            assert np.abs(red - sample["target"])[valid].max() <= 1.01 / 255
            assert sample["target"][~valid].max(initial=0) == 0
            assert np.allclose(sample["pixel_values"][:, ~valid], PAD_VALUE / 255)
            rows, columns = valid.any(1).sum(), valid.any(0).sum()
            assert valid.sum() == rows * columns and max(rows, columns) == SIZE
            assert valid[:rows, :columns].all()
            shapes.add((rows, columns))
            seen += sample["target"].any()
    assert seen > 100 and len(shapes) >= (5 if crop_min == 1 else 20)


@pytest.mark.parametrize("size_hw", [(300, 100), (100, 300), (200, 200)])
@pytest.mark.parametrize("crop_min", [1.0, 0.8])
def test_a_circle_stays_a_circle(tmp_path, size_hw, crop_min):
    middle, radius = (size_hw[1] // 2, size_hw[0] // 2), 30
    folder = tmp_path / "cracks.coco"
    write_export(folder, [image(1, "1.png", size_hw)], [annotation(1, 1)])
    canvas = Image.new("RGB", size_hw[::-1])
    ImageDraw.Draw(canvas).circle(middle, radius, "white")
    canvas.save(folder / "train" / "1.png")
    dataset = PromptedDataset(
        build_manifest(folder, tmp_path / "m", "publisher"), "train", **PLAIN | {"image_size": 96}, crop_min=crop_min
    )
    for dataset.epoch in range(5):
        sample = dataset[0]
        white = (sample["pixel_values"][0] > 0.5) & sample["valid"]
        height, width = white.any(1).sum(), white.any(0).sum()
        assert abs(height - width) <= 1
        assert abs(white.sum() / (np.pi / 4 * height * width) - 1) < 0.12
        scale = 96 / max(size_hw)
        assert 2 * radius * scale - 1 <= height <= 2 * radius * scale / crop_min + 2


def test_padding_keeps_its_grey_whatever_the_colours(manifest):
    dataset = PromptedDataset(manifest, "train", **PLAIN, color_strength=0.9)
    for sample in samples_of(dataset):
        assert np.allclose(sample["pixel_values"][:, ~sample["valid"]], PAD_VALUE / 255)


# --- Prompts


def test_negatives_have_their_share_and_an_empty_target(manifest):
    dataset = PromptedDataset(manifest, "train", **PLAIN, negative_share=0.3)
    labels_of = manifest.table.groupby("image_id").label.agg(set)
    counts = {"positive": 0, "other label": 0, "absent thing": 0}
    for dataset.epoch in range(40):
        for record, sample in zip(dataset.records, samples_of(dataset), strict=True):
            asked = LABEL_OF.get(sample["prompt"])
            if asked == record.label:
                counts["positive"] += 1
                assert sample["target"].any()
            else:
                assert not sample["target"].any()
                assert asked or sample["prompt"] in ABSENT_THINGS
                assert asked not in labels_of[record.image_id]
                assert {asked, record.label} != {"taping_area", "joint_line"}
                counts["other label" if asked else "absent thing"] += 1
    total = sum(counts.values())
    assert abs(counts["positive"] / total - 0.7) < 0.05
    assert abs(counts["other label"] / total - 0.15) < 0.04
    assert abs(counts["absent thing"] / total - 0.15) < 0.04


def test_without_a_negative_share_every_prompt_is_the_rows_own(manifest):
    dataset = PromptedDataset(manifest, "train", **PLAIN)
    assert all(LABEL_OF[s["prompt"]] == r.label for r, s in zip(dataset.records, samples_of(dataset), strict=True))


@pytest.mark.parametrize(
    ("label", "others", "allowed"),
    [
        ("crack", [], {"taping_area", "joint_line"}),
        ("taping_area", [], {"crack"}),
        ("joint_line", [], {"crack"}),
        ("taping_area", ["joint_line"], {"crack"}),
        ("joint_line", ["taping_area"], {"crack"}),
        ("crack", ["taping_area"], set()),  # never a joint line where there is a taping area
        ("crack", ["joint_line"], set()),  # nor the other way round
        ("taping_area", ["crack"], set()),
        ("joint_line", ["crack"], set()),
        ("crack", ["taping_area", "joint_line"], set()),
    ],
)
def test_which_labels_are_asked_for_as_negatives(label, others, allowed):
    rng = np.random.default_rng(5)
    drawn = [draw_prompt(label, {label, *others}, 1.0, rng) for _ in range(400)]
    assert not any(present for _, present in drawn)
    assert {LABEL_OF[prompt] for prompt, _ in drawn if prompt in LABEL_OF} == allowed
    assert {prompt for prompt, _ in drawn if prompt not in LABEL_OF} == set(ABSENT_THINGS)


@pytest.mark.parametrize("label", LABELS)
def test_every_wording_of_a_label_is_drawn(label):
    rng = np.random.default_rng(5)
    drawn = {draw_prompt(label, {label}, 0.0, rng) for _ in range(200)}
    assert drawn == {(prompt, True) for prompt in PROMPTS[label]}


# --- Randomness

RANDOM = {**PLAIN, "negative_share": 0.3, "crop_min": 0.5, "color_strength": 0.3}


def test_a_sample_depends_on_seed_epoch_and_index_alone(manifest):
    first, again = (PromptedDataset(manifest, "train", **RANDOM, seed=7) for _ in range(2))
    forward, backward = samples_of(first), [again[i] for i in reversed(range(len(again)))][::-1]
    np.random.seed(3), torch.manual_seed(3)
    assert all(equal(a, b) for a, b in zip(forward, backward, strict=True))
    for seed, epoch in ((8, 0), (7, 1)):
        other = PromptedDataset(manifest, "train", **RANDOM, seed=seed)
        other.epoch = epoch
        assert sum(not equal(a, b) for a, b in zip(forward, samples_of(other), strict=True)) > len(forward) / 2
        assert other.order() != first.order()
    assert sorted(first.order()) == list(range(len(first))) and first.order() == again.order()


def test_workers_change_nothing(manifest):
    batches = {}
    for workers in (0, 2):
        dataset = PromptedDataset(manifest, "train", **RANDOM)
        dataset.epoch = 3
        batches[workers] = list(DataLoader(dataset, batch_size=5, sampler=dataset.order(), num_workers=workers))
    assert len(batches[0]) == len(batches[2]) == 4
    for one, two in zip(batches[0], batches[2], strict=True):
        assert one["prompt"] == two["prompt"]
        assert all(torch.equal(one[key], two[key]) for key in ("pixel_values", "target", "valid"))


def test_one_sample_draws_unlike_the_next(manifest):
    table = manifest.rows("train").iloc[[1] * 20]
    dataset = PromptedDataset(Manifest(table, manifest.data_root, manifest.folder, {}), "train", **RANDOM)
    assert len({sample["pixel_values"].tobytes() for sample in samples_of(dataset)}) > 15


def test_a_photo_that_is_gone_is_an_error_and_not_skipped(manifest):
    dataset = PromptedDataset(manifest, "train", **PLAIN)
    dataset.records[0] = dataset.records[0]._replace(image_path="gone.png")
    with pytest.raises(ImageError, match="gone.png: no such file"):
        dataset[0]


@pytest.mark.parametrize("balance", ["label", "photograph"])
def test_each_label_or_photograph_is_drawn_as_often(sample_manifest, balance):
    data = PromptedDataset(sample_manifest, "train", **PLAIN, balance=balance)
    plain = PromptedDataset(sample_manifest, "train", **PLAIN)

    def counts(dataset):
        drawn = []
        for dataset.epoch in range(60):
            drawn += [dataset.records[i] for i in dataset.order()]
        names = [r.label if balance == "label" else r.photo_id for r in drawn]
        return np.unique(names, return_counts=True)[1]

    assert counts(data).max() / counts(data).min() < (1.15 if balance == "label" else 2.2)
    assert counts(plain).max() / counts(plain).min() > (1.5 if balance == "label" else 2.5)


def test_stored_views_are_the_same_in_every_epoch_and_for_every_row_of_an_image(manifest):
    data = PromptedDataset(manifest, "train", **RANDOM, stored_views=2)
    plain = PromptedDataset(manifest, "train", **{**RANDOM, "negative_share": 0.0}, stored_views=2)
    first = samples_of(plain)
    for number, (record, sample) in enumerate(zip(plain.records, first, strict=True)):
        assert sample["view"] == 0 and sample["image_id"] == record.image_id and "pixel_values" not in sample
        red = plain.pixels(record.image_id, 0)[0]
        lit = sample["target"] > 0.99  # colours are changed, so only where it is: the brightest of the photo
        assert not lit.any() or red[lit].min() > red[sample["valid"] & (sample["target"] == 0)].max(initial=-1), number
    data.epoch, plain.epoch = 2, 2
    for one, two in zip(first, samples_of(plain), strict=True):
        assert np.array_equal(one["target"], two["target"]) and two["view"] == 0
    plain.epoch = 1
    assert sum(not np.array_equal(a["target"], b["target"]) for a, b in zip(first, samples_of(plain), strict=True)) > 9
    assert {sample["view"] for sample in samples_of(plain)} == {1}
