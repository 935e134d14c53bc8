import pytest

from drywall_seg.config import resolve_config
from drywall_seg.evaluation.collect import collect_histograms, collect_presence, score_validation
from drywall_seg.inference import Predictor
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models.compact import new_compact
from drywall_seg.paraphrases import held_out_absent
from drywall_seg.prompts import LABELS, canonical_prompt


@pytest.fixture(scope="module")
def predictor():
    return Predictor(TorchBackend(new_compact(64)))


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
    thresholds, summary = score_validation(predictor, sample_manifest, resolve_config())
    assert summary["labels"]["crack"]["threshold"] == thresholds["crack"]
    fixed, worse = score_validation(predictor, sample_manifest, resolve_config(threshold=0.5))
    assert set(fixed.values()) == {0.5}
    for label, values in summary["labels"].items():
        assert values["mean_dice"] >= worse["labels"][label]["mean_dice"]


def test_in_parts_every_image_of_val_counts_once(predictor, sample_manifest):
    whole = score_validation(predictor, sample_manifest, resolve_config())
    parts = []

    def keep(items):
        parts.extend(items)
        return items

    for number in range(3):
        score_validation(predictor, sample_manifest, resolve_config(), part=(number, 3), gather=keep)
    rows = [set(zip(table.image_id, table.label, strict=True)) for table, _ in parts]
    wanted = sample_manifest.rows("val")
    assert sum(map(len, rows)) == len(wanted) and set.union(*rows) == set(
        zip(wanted.image_id, wanted.label, strict=True)
    )
    others = parts[1:]
    assert whole == score_validation(
        predictor, sample_manifest, resolve_config(), part=(0, 3), gather=lambda own: own + others
    )


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
    with pytest.raises(ValueError, match="on val alone, not on test"):
        collect_presence(watched, sample_manifest, sample_manifest.rows("test"), seed=42, n_images=3)
