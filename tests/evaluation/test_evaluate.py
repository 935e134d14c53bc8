import json
import math
from dataclasses import replace

import numpy as np
import pytest

from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import prepare
from drywall_seg.data.splits import leak_report, photo_hash
from drywall_seg.evaluation.collect import collect_histograms, predict_rows, unseen_rows
from drywall_seg.evaluation.evaluate import (
    TABLES,
    evaluate,
    evaluate_run,
    metrics_table,
    read_results,
)
from drywall_seg.evaluation.metrics import counts_at, dice, iou, mask_counts, summarise
from drywall_seg.evaluation.thin import CRACK_SCORES, LINE_SCORES, THIN_LABELS, joint_line_scores
from drywall_seg.evaluation.thresholds import sweep_table
from drywall_seg.images import read_mask
from drywall_seg.inference import Predictor
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models.compact import new_compact
from drywall_seg.prompts import canonical_prompt


@pytest.fixture(scope="module")
def predictor():
    return Predictor(TorchBackend(new_compact(64)))


def test_scores_are_those_of_each_photo_predicted_alone(predictor, sample_manifest, tmp_path):
    table, _ = evaluate(predictor, sample_manifest, "test", tmp_path / "masks")
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


def test_histograms_give_the_counts_of_the_masks_at_every_threshold(predictor, sample_manifest):
    rows, histograms = collect_histograms(predictor, sample_manifest, sample_manifest.rows("val"))
    answers = predict_rows(predictor, sample_manifest, sample_manifest.rows("val"))
    for (row, answer, target), histogram, kept in zip(answers, histograms, rows.itertuples(), strict=True):
        assert (row.image_id, row.label) == (kept.image_id, kept.label)
        levels = np.rint(answer.probs * np.float32(255))
        for number in range(1, 100):
            mask = levels >= math.ceil(255 * (number / 100))
            assert tuple(counts_at(histogram, number / 100)) == mask_counts(mask, target)


def test_the_sweep_runs_the_model_once_an_image_and_prompt(sample_manifest):
    backend = TorchBackend(new_compact(64))
    decoded = []
    original = backend.decode
    backend.decode = lambda features, images, texts: decoded.append(len(images)) or original(features, images, texts)
    rows, histograms = collect_histograms(Predictor(backend), sample_manifest, sample_manifest.rows("val"))
    assert len(sweep_table(rows, histograms)) == 99 * rows.label.nunique()
    assert sum(decoded) == len(sample_manifest.rows("val"))


def test_an_evaluated_run_has_its_files(project):
    config = resolve_config(run_name="mine", image_size=64)
    manifest = prepare(config)
    folder = project / "outputs" / "mine"
    (folder / "masks").mkdir(parents=True)
    (folder / "masks" / "of_an_earlier_evaluation.png").touch()
    metrics, tables = evaluate_run(config, manifest)
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    per_image = tables["per_image"]
    assert summarise(per_image)["overall"].items() <= metrics["overall"].items()
    for label, values in summarise(per_image)["labels"].items():
        assert values.items() <= metrics["labels"][label].items()
    assert len(list((folder / "masks").iterdir())) == len(per_image) == len(manifest.rows("test"))
    assert metrics_table(metrics).label.tolist() == ["crack", "taping_area", "joint_line", "overall"]
    assert {path.stem for path in (folder / TABLES).iterdir()} == set(tables) - {"per_image"}
    assert all(len(table) for table in tables.values())
    assert set(tables["sweep"].split) == {"val", "test"} and len(tables["sweep"]) == 2 * 3 * 99
    assert set(metrics["seconds"]) == {"scoring", "val", "prompt tests", "other sizes", "runtime"}
    swept = tables["sweep"][tables["sweep"].split == "val"].set_index(["label", "threshold"])
    for label, values in metrics["val"]["labels"].items():
        assert values["mean_dice"] == pytest.approx(swept.mean_dice[label, values["threshold"]])
        assert values["n_images"] == (manifest.rows("val").label == label).sum()
    for values in (metrics["overall"], *metrics["labels"].values()):
        # The names that others rely on.
        names = "n_images n_photographs threshold mean_iou mean_dice pooled_iou interval_95 wrong_prompt_area cldice"
        assert set(names.split()) <= set(values)
    assert {values["share_trained_on"] for values in metrics["labels"].values()} == {0}
    with pytest.raises(FileNotFoundError, match="run 03_evaluate"):
        read_results(project / "outputs" / "another")


def test_centre_lines_are_scored_against_joint_lines_whatever_was_asked_for(predictor, sample_manifest):
    table, _ = evaluate(predictor, sample_manifest, "test")
    with_lines = set(table.image_id[table.label == "joint_line"])
    scored = table[LINE_SCORES].notna().all(axis=1)
    expected = (table.label == "joint_line") | ((table.label == "taping_area") & table.image_id.isin(with_lines))
    assert (scored == expected).all()
    assert (table[CRACK_SCORES].notna().all(axis=1) == (table.label == "crack")).all()
    row = table[(table.label == "taping_area") & scored].iloc[0]
    records = sample_manifest.table[sample_manifest.table.image_id == row.image_id]
    lines = read_mask(sample_manifest.mask_file(records[records.label == "joint_line"].iloc[0]))
    photo = sample_manifest.image_file(records.iloc[0])
    (alone,) = predictor.predict(photo, [canonical_prompt("taping_area")])
    assert joint_line_scores(alone.mask, lines)["joint_line_f1"] == pytest.approx(row.joint_line_f1, abs=0.02)
    summary = summarise(table)["labels"]
    assert summary["taping_area"]["n_joint_line_truth"] == len(with_lines)
    assert (table.cldice.notna() == table.label.isin(THIN_LABELS)).all()
    for label in THIN_LABELS:
        assert summary[label]["cldice"] == table.cldice[table.label == label].mean()
    assert summary["taping_area"]["cldice"] is summarise(table)["overall"]["cldice"] is None
    assert "mean_boundary_f1" in summary["crack"] and "mean_boundary_f1" not in summary["joint_line"]


def test_a_split_without_images(predictor, sample_manifest):
    empty = type(sample_manifest)(
        sample_manifest.table[sample_manifest.table.split != "test"],
        sample_manifest.data_root,
        sample_manifest.folder,
        sample_manifest.info,
    )
    table, _ = evaluate(predictor, empty, "test")
    assert table.empty
    assert summarise(table) == {"overall": None, "labels": {}}


def test_photographs_that_the_model_knows_are_left_out(predictor, sample_manifest):
    known = sample_manifest.rows("test").photo_id.unique()[:2]
    knowing = Predictor(predictor.backend)
    knowing.backend.trained_on = frozenset({photo_hash(name) for name in known} | {"another"})
    try:
        table, _ = evaluate(knowing, sample_manifest, "test")
        assert unseen_rows(knowing, sample_manifest, "test")[1] == 2
        assert not set(known) & set(table.photo_id)
        assert set(table.photo_id) | set(known) == set(sample_manifest.rows("test").photo_id)
        everything, _ = evaluate(knowing, replace(sample_manifest, score_known=True), "test")
        assert set(known) <= set(everything.photo_id) and len(everything) == len(sample_manifest.rows("test"))
        report = leak_report(sample_manifest.table, knowing.backend.trained_on)
        assert report.n_leaked.sum() == sample_manifest.rows("test").photo_id.isin(known).sum()
    finally:
        knowing.backend.trained_on = frozenset()


def test_a_given_threshold_is_that_of_every_figure(project):
    config = resolve_config(run_name="given", image_size=64, threshold=0.01)
    metrics, tables = evaluate_run(config, prepare(config))
    assert metrics["thresholds_chosen"] == "given"
    assert {values["threshold"] for values in metrics["labels"].values()} == {0.01}
    assert {values["threshold"] for values in metrics["val"]["labels"].values()} == {0.01}
    shown = tables["questions"].query("asked == 'canonical'").set_index(["image_id", "label"]).iou
    for row in tables["per_image"].itertuples():
        if (row.image_id, row.label) in shown.index:
            assert row.iou == pytest.approx(shown[row.image_id, row.label], abs=0.01)


def test_a_sample_says_so_and_keeps_the_joint_lines_of_taping_areas(project):
    config = resolve_config(run_name="few", image_size=64, test_images=4)
    metrics, tables = evaluate_run(config, prepare(config))
    assert metrics["split"].startswith("a sample of 4 images of the test part of the 'photo' split")
    assert tables["per_image"].label.value_counts().to_dict() == {"crack": 2, "taping_area": 2}
    assert metrics["labels"]["taping_area"]["n_joint_line_truth"] > 0


def test_settings_of_a_baseline_are_those_of_its_last_evaluation(project):
    for size in (64, 96):
        config = resolve_config(run_name="baseline", image_size=size)
        evaluate_run(config, prepare(config))
    stored = json.loads((project / "outputs" / "baseline" / "config.json").read_text())
    assert stored["image_size"] == 96
