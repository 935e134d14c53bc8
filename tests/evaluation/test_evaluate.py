import json

import numpy as np
import pandas as pd
import pytest

from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import prepare
from drywall_seg.data.splits import leak_report, photo_hash
from drywall_seg.evaluation.evaluate import (
    collect_histograms,
    collect_presence,
    evaluate,
    evaluate_run,
    metrics_table,
    score_validation,
    unseen_rows,
)
from drywall_seg.evaluation.metrics import counts_at, dice, iou, mask_counts, summarise
from drywall_seg.images import read_image, read_mask
from drywall_seg.inference import Predictor
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models.compact import new_compact
from drywall_seg.paraphrases import held_out_absent
from drywall_seg.prompts import LABELS, canonical_prompt


@pytest.fixture(scope="module")
def predictor():
    return Predictor(TorchBackend(new_compact(64)))


def test_scores_are_those_of_each_photo_predicted_alone(predictor, sample_manifest, tmp_path):
    table = evaluate(predictor, sample_manifest, "test", tmp_path / "masks")
    rows = sample_manifest.rows("test")
    assert len(table) == len(rows)
    by_key = {(r.image_id, r.label): r for r in table.itertuples(index=False)}
    for row in rows.itertuples(index=False):
        result = by_key[row.image_id, row.label]
        (alone,) = predictor.predict(sample_manifest.image_file(row), [canonical_prompt(row.label)])
        target = read_mask(sample_manifest.mask_file(row))
        written = read_mask(tmp_path / "masks" / result.mask_file)
        assert written.shape == target.shape
        assert (written != alone.mask).mean() < 1e-3  # batches round differently in the last bit
        counts = mask_counts(written, target)
        assert (result.tp, result.fp, result.fn) == counts
        assert (result.iou, result.dice) == (iou(*counts), dice(*counts))
        assert result.mask_file.endswith(f"__{canonical_prompt(row.label).replace(' ', '_')}.png")
    assert table.mask_file.is_unique


def test_histograms_give_the_same_counts_as_the_masks(predictor, sample_manifest):
    rows, histograms = collect_histograms(predictor, sample_manifest, sample_manifest.rows("val"))
    table = evaluate(predictor, sample_manifest, "val", threshold=0.2)
    assert rows.image_id.tolist() == table.image_id.tolist()
    assert np.array_equal(counts_at(histograms, 0.2), table[["tp", "fp", "fn"]].to_numpy())


def test_each_image_is_encoded_once_whatever_its_labels(sample_manifest):
    backend = TorchBackend(new_compact(64))
    encoded = []
    original = backend.encode_images
    backend.encode_images = lambda pixels: encoded.append(len(pixels)) or original(pixels)
    rows = sample_manifest.table[sample_manifest.table.image_id.duplicated(keep=False)]
    assert rows.label.nunique() == 2
    collect_histograms(Predictor(backend), sample_manifest, rows)
    assert sum(encoded) == rows.image_id.nunique() == len(rows) / 2


def test_thresholds_come_from_val_unless_one_is_given(predictor, sample_manifest):
    thresholds, summary = score_validation(predictor, sample_manifest)
    assert summary["labels"]["crack"]["threshold"] == thresholds["crack"]
    fixed, worse = score_validation(predictor, sample_manifest, threshold=0.5)
    assert set(fixed.values()) == {0.5}
    for label, values in summary["labels"].items():
        assert values["mean_dice"] >= worse["labels"][label]["mean_dice"]


def test_an_evaluated_run_has_its_files(project):
    config = resolve_config(run_name="mine", image_size=64)
    manifest = prepare(config)
    folder = project / "outputs" / "mine"
    (folder / "masks").mkdir(parents=True)
    (folder / "masks" / "of_an_earlier_evaluation.png").touch()
    metrics, per_image = evaluate_run(config, manifest)
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    stored = pd.read_csv(folder / "per_image.csv")
    assert summarise(stored) == {name: metrics[name] for name in ("overall", "labels")}
    assert len(list((folder / "masks").iterdir())) == len(per_image) == len(manifest.rows("test"))
    assert metrics_table(metrics).label.tolist() == ["crack", "taping_area", "joint_line", "overall"]
    photo = read_image(manifest.image_file(manifest.rows("test").iloc[0]))
    assert read_mask(folder / "masks" / per_image.mask_file[0]).shape
    assert photo.ndim == 3


def test_a_split_without_images(predictor, sample_manifest):
    empty = type(sample_manifest)(
        sample_manifest.table[sample_manifest.table.split != "test"],
        sample_manifest.data_root,
        sample_manifest.folder,
        sample_manifest.info,
    )
    table = evaluate(predictor, empty, "test")
    assert table.empty
    assert summarise(table) == {"overall": None, "labels": {}}


def test_photographs_that_the_model_knows_are_left_out(predictor, sample_manifest):
    known = sample_manifest.rows("test").photo_id.unique()[:2]
    knowing = Predictor(predictor.backend)
    knowing.backend.trained_on = frozenset({photo_hash(name) for name in known} | {"another"})
    try:
        table = evaluate(knowing, sample_manifest, "test")
        assert unseen_rows(knowing, sample_manifest, "test")[1] == 2
        assert not set(known) & set(table.photo_id)
        assert set(table.photo_id) | set(known) == set(sample_manifest.rows("test").photo_id)
        report = leak_report(sample_manifest.table, knowing.backend.trained_on)
        assert report.n_leaked.sum() == sample_manifest.rows("test").photo_id.isin(known).sum()
    finally:
        knowing.backend.trained_on = frozenset()


def test_presence_asks_for_what_is_there_and_for_what_is_not(predictor, sample_manifest):
    asked = []
    original = predictor.predict
    watched = Predictor(predictor.backend)
    watched.predict = lambda image, prompts: asked.extend(prompts) or original(image, prompts)
    rows = sample_manifest.rows("val")
    present, absent = collect_presence(watched, sample_manifest, rows, seed=42, n_images=3)
    assert len(present) + len(absent) == len(asked)
    assert {canonical_prompt(label) for label in LABELS} <= set(asked)
    assert not set(asked) & {*held_out_absent()}
    assert (present >= 0).all() and (absent <= 1).all()
