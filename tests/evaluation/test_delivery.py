import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from drywall_seg.data.splits import photo_hash
from drywall_seg.evaluation.delivery import (
    SIDE,
    PackedMask,
    _reduced,
    choose_delivery,
    choose_postprocessing,
    collect_masks,
    dice_of,
    settle,
)
from drywall_seg.evaluation.metrics import dice, mask_counts
from drywall_seg.images import read_image
from drywall_seg.inference import Predictor
from drywall_seg.inference.monitor import FIELDS, describe_photo
from drywall_seg.inference.postprocess import PostProcessing, postprocess
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models import load_segmenter
from drywall_seg.models.compact import new_compact
from drywall_seg.prompts import LABELS, canonical_prompt
from drywall_seg.runs import read_json, write_json

BLOCK = (20, 20, 60, 60)
SPECKS = [(y, x, 2, 2) for y in (2, 8, 90) for x in (2, 30, 60, 90)]  # 4 of 10,000 pixels each
HOLES = [(30, x, 4, 4) for x in (30, 50, 70)]


def drawn(*boxes, but=(), shape=(100, 100)):
    mask = np.zeros(shape, np.uint8)
    for value, some in ((255, boxes), (0, but)):
        for top, left, height, width in some:
            mask[top : top + height, left : left + width] = value
    return mask


def chosen(masks, targets, label="crack", photo_ids=None):
    masks, targets = ([PackedMask.of(mask) for mask in some] for some in (masks, targets))
    return choose_postprocessing(label, masks, targets, np.array(photo_ids or range(len(masks))))


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_a_packed_mask_comes_back_as_it_was(inside):
    mask = inside * np.uint8(255)
    packed = PackedMask.of(mask)
    assert np.array_equal(packed.unpack(), mask) and packed.unpack().dtype == np.uint8
    assert packed.share() == inside.mean()


@settings(deadline=None)
@given(st.lists(arrays(np.bool_, (7, 9)), min_size=2, max_size=6))
def test_dice_of_packed_masks_is_that_of_the_masks(insides):
    masks, targets = insides, insides[1:] + insides[:1]
    expected = [float(dice(*mask_counts(*pair))) for pair in zip(masks, targets, strict=True)]
    found = dice_of(*([PackedMask.of(m * np.uint8(255)) for m in some] for some in (masks, targets)))
    assert found.tolist() == expected


def test_what_helps_on_every_photograph_is_chosen_step_by_step():
    mask, target = drawn(BLOCK, *SPECKS, but=HOLES), drawn(BLOCK)
    steps, delivered = chosen([mask] * 12, [target] * 12)
    assert steps == PostProcessing(hole_area=0.002, min_area=0.001)  # the first of those that do it
    assert all(np.array_equal(found.unpack(), target) for found in delivered)
    assert np.array_equal(postprocess(mask, steps), target)  # step by step is as all in one


def test_what_helps_here_and_harms_there_is_not_chosen():
    """Seven photographs have specks that are false, five have ones that are true: the mean gains, by chance."""
    masks, targets = [drawn(BLOCK, *SPECKS)] * 12, [drawn(BLOCK)] * 7 + [drawn(BLOCK, *SPECKS)] * 5
    gain = dice_of([PackedMask.of(drawn(BLOCK))] * 12, [PackedMask.of(t) for t in targets])
    assert gain.mean() > dice_of(*([PackedMask.of(m) for m in some] for some in (masks, targets))).mean() + 0.001
    steps, delivered = chosen(masks, targets)
    assert steps == PostProcessing() and all(np.array_equal(found.unpack(), masks[0]) for found in delivered)


def test_a_gain_that_no_figure_shows_is_left():
    one = drawn(BLOCK, SPECKS[0])
    assert 0 < 1 - dice(*mask_counts(one, drawn(BLOCK))) < 0.001
    assert chosen([one] * 12, [drawn(BLOCK)] * 12)[0] == PostProcessing()
    assert chosen([drawn(BLOCK)] * 12, [drawn(BLOCK)] * 12)[0] == PostProcessing()  # a tie


def test_copies_of_few_photographs_choose_nothing():
    masks, targets = [drawn(BLOCK, *SPECKS)] * 30, [drawn(BLOCK)] * 30
    assert chosen(masks, targets, photo_ids=[number % 10 for number in range(30)])[0].min_area == 0.001
    assert chosen(masks, targets, photo_ids=[number % 9 for number in range(30)])[0] == PostProcessing()


def test_only_lines_are_joined():
    line = (46, 5, 8, 190)
    mask, target = drawn(line, but=[(40, 90, 20, 12)], shape=(100, 200)), drawn(line, shape=(100, 200))
    assert chosen([mask] * 10, [target] * 10, "joint_line")[0] == PostProcessing(join_gap=0.1)
    assert chosen([mask] * 10, [target] * 10, "crack")[0] == PostProcessing()


def test_large_masks_are_tried_smaller():
    mask = drawn((0, 0, SIDE, SIDE), shape=(2 * SIDE, SIDE + 1))
    small = _reduced(mask)
    assert small.shape == (SIDE, SIDE // 2 + 1) and small.dtype == np.uint8
    assert small[: SIDE // 2, : SIDE // 2].all() and not small[SIDE // 2 :].any()
    assert _reduced(small) is small


def generous(presence_cut=0.0):
    """A model that finds something everywhere."""
    return Predictor(TorchBackend(load_segmenter("compact", 64)), dict.fromkeys(LABELS, 0.02), presence_cut)


def test_val_is_seen_once_with_all_that_monitoring_wants(sample_manifest):
    predictor, rows = generous(), sample_manifest.rows("val")
    calls = []
    original = predictor.backend.decode
    predictor.backend.decode = lambda features, images, texts: (
        calls.append(len(images)) or original(features, images, texts)
    )
    chosen = choose_delivery(predictor, sample_manifest, rows)
    assert sum(calls) == len(rows)
    assert json.loads(json.dumps(chosen)) == chosen == choose_delivery(predictor, sample_manifest, rows)
    assert set(chosen["postprocessing"]) == set(chosen["reference"]) == set(rows.label)
    for label, part in rows.groupby("label"):
        assert chosen["reference"][label]["n"] == len(part)
    (row,) = rows.head(1).itertuples()
    photo = read_image(sample_manifest.image_file(row))
    (answer,) = predictor.predict(photo, [canonical_prompt(row.label)])
    seen = collect_masks(predictor, sample_manifest, rows[rows.image_id == row.image_id])
    found = seen[seen.label == row.label].iloc[0]
    expected = {"presence": answer.presence, "doubt": answer.doubt, **describe_photo(photo)}
    assert {name: found[name] for name in FIELDS if name != "area"} == pytest.approx(expected, rel=1e-3)
    assert (found["mask"].unpack() != answer.mask).mean() < 1e-3  # batches round differently in the last bit
    with pytest.raises(ValueError, match="on val alone, not on test"):
        choose_delivery(predictor, sample_manifest, sample_manifest.rows("test"))


def test_the_reference_is_of_delivered_masks(sample_manifest, monkeypatch):
    rows, half = sample_manifest.rows("val"), PostProcessing(min_area=1.0)

    def empty_cracks(label, masks, targets, photo_ids):
        gone = [replace(mask, bits=np.zeros_like(mask.bits)) for mask in masks]
        return (half, gone) if label == "crack" else (PostProcessing(), masks)

    before = choose_delivery(generous(), sample_manifest, rows)["reference"]
    monkeypatch.setattr("drywall_seg.evaluation.delivery.choose_postprocessing", empty_cracks)
    after = choose_delivery(generous(), sample_manifest, rows)
    assert after["postprocessing"] == {"crack": {"min_area": 1.0}, "taping_area": {}, "joint_line": {}}
    assert max(before["crack"]["area"]) > 0 == max(after["reference"]["crack"]["area"])
    assert after["reference"]["joint_line"] == before["joint_line"]
    everything_gone = choose_delivery(generous(presence_cut=1.0), sample_manifest, rows)
    assert everything_gone["presence_cut"] == 1.0 and max(everything_gone["reference"]["joint_line"]["area"]) == 0


def test_without_val_there_is_nothing_to_choose(sample_manifest):
    chosen = choose_delivery(generous(), sample_manifest, sample_manifest.rows("val").head(0))
    assert chosen == {"presence_cut": 0.0, "postprocessing": {}, "reference": {}}


def test_settling_keeps_thresholds_and_presence_cut(sample_manifest, tmp_path):
    load_segmenter("compact", 64).save(tmp_path)
    before = {"thresholds": dict.fromkeys(LABELS, 0.02), "chosen": "by hand", "presence_cut": 0.1}
    write_json(tmp_path / "thresholds.json", before | {"postprocessing": {"crack": {"min_area": 1.0}}})
    chosen = settle(tmp_path, sample_manifest)
    stored = read_json(tmp_path / "thresholds.json")
    assert stored == before | chosen
    assert stored["postprocessing"] == {"crack": {}, "taping_area": {}, "joint_line": {}}
    assert max(stored["reference"]["crack"]["area"]) > 0  # not of the masks that the old steps would have left
    loaded = Predictor.load(tmp_path)
    assert loaded.reference == chosen["reference"] and loaded.postprocessing["crack"] == PostProcessing()


def test_what_cannot_be_settled_stays_as_it_is(sample_manifest, tmp_path):
    new_compact(64).save(tmp_path)
    write_json(tmp_path / "thresholds.json", {"thresholds": {"crack": 0.5}})
    with pytest.raises(ValueError, match=r"thresholds\.json: no presence cut"):
        settle(tmp_path, sample_manifest)
    write_json(tmp_path / "thresholds.json", {"presence_cut": 0.5})
    known = sample_manifest.rows("val").photo_id.unique()
    write_json(tmp_path / "photographs.json", sorted(map(photo_hash, known)))
    with pytest.raises(ValueError, match=f"without the {len(known)} that the model knows"):
        settle(tmp_path, sample_manifest)
    assert read_json(tmp_path / "thresholds.json") == {"presence_cut": 0.5}
