import numpy as np
import pytest

from drywall_seg.evaluation.collect import sample_images
from drywall_seg.evaluation.robustness import (
    ASKED,
    ask_otherwise,
    prompt_warnings,
    resize_photos,
    summarise_questions,
)
from drywall_seg.images import read_image
from drywall_seg.inference import Predictor
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models import load_segmenter
from drywall_seg.paraphrases import held_out_absent, held_out_sentences
from drywall_seg.prompts import ABSENT_LABELS, LABELS, canonical_prompt


@pytest.fixture(scope="module")
def compact():
    return Predictor.load("compact", 192)


@pytest.fixture(scope="module")
def few(sample_manifest):
    """The manifest with some test rows of each label."""
    table = sample_manifest.rows("test").groupby("label").head(3).reset_index(drop=True)
    return type(sample_manifest)(table, sample_manifest.data_root, sample_manifest.folder, sample_manifest.info)


@pytest.fixture(scope="module")
def asked(compact, few):
    return ask_otherwise(compact, few, "test", n_drawn=2)


def test_what_each_photo_is_asked(asked, few):
    for image_id, group in asked.groupby("image_id"):
        rows = few.table[few.table.image_id == image_id]
        all_, has = set(rows.label), set(rows.label[rows.mask_area > 0])
        by_kind = {kind: group[group.asked == kind] for kind in ASKED}
        assert set(by_kind["canonical"].label) == has
        assert set(by_kind["nothing_annotated"].label) == all_ - has
        assert set(group.photo_label) == {rows.label.iloc[0]}
        assert by_kind["paraphrase"].groupby("label").size().to_dict() == dict.fromkeys(has, 2)
        for row in by_kind["paraphrase"].itertuples():
            assert row.prompt in held_out_sentences(row.label)
        other = set(by_kind["other_label"].label)
        assert other == {o for o in LABELS if all(o in ABSENT_LABELS[label] for label in all_)}
        assert set(by_kind["absent"].prompt) <= set(held_out_absent()) and len(by_kind["absent"]) == 2


def test_only_what_is_there_has_an_iou(asked):
    there = asked.asked.isin(["canonical", "paraphrase"])
    assert asked.iou[there].between(0, 1).all() and asked.iou[~there].isna().all()
    assert asked.area.between(0, 1).all() and asked.presence.between(0, 1).all()


def test_the_figures_are_those_of_the_delivered_masks(asked, compact, few):
    row = next(asked[asked.asked == "paraphrase"].itertuples())
    record = next(few.table[few.table.image_id == row.image_id].itertuples())
    (answer,) = compact.predict(few.image_file(record), [row.prompt])
    assert row.area == pytest.approx((answer.mask > 0).mean()) and row.presence == pytest.approx(answer.presence)


def test_the_questions_depend_on_the_seed_alone(asked, compact, few):
    assert ask_otherwise(compact, few, "test", n_drawn=2).equals(asked)
    assert set(ask_otherwise(compact, few, "test", seed=1, n_drawn=2).prompt) != set(asked.prompt)


def test_summary(asked):
    summary = summarise_questions(asked)
    assert summary.n_asked.sum() == len(asked)
    assert list(summary.asked.unique()) == [kind for kind in ASKED if (asked.asked == kind).any()]
    crack = summary[(summary.asked == "canonical") & (summary.label == "crack")].iloc[0]
    rows = asked[(asked.asked == "canonical") & (asked.label == "crack")]
    assert crack.n_images == len(rows) and crack.mean_iou == pytest.approx(rows.iou.mean())
    there = asked[asked.asked.isin(["canonical", "paraphrase"]) & (asked.label == "crack")]
    spread = np.mean([group.iou.std(ddof=0) for _, group in there.groupby("image_id")])
    row = summary[(summary.asked == "paraphrase") & (summary.label == "crack")].iloc[0]
    assert row.spread == pytest.approx(spread) and np.isnan(crack.spread)


class Blind(TorchBackend):
    """Answers every sentence as the first one that it was ever asked."""

    def encode_prompts(self, prompts):
        return super().encode_prompts([canonical_prompt("crack")] * len(prompts))


def test_a_model_that_ignores_the_sentence_is_exposed(few):
    backend = Blind(load_segmenter("compact", 192))
    backend.trained_on = frozenset()
    blind = Predictor(backend, dict.fromkeys(LABELS, 0.2))
    table = ask_otherwise(blind, few, "test", n_drawn=1)
    assert any(
        "on crack photos another label's sentence gives the same mask (IoU 1.00)" in w for w in prompt_warnings(table)
    )


def test_the_shipped_model_is_not_blind(asked):
    assert prompt_warnings(asked) == []
    assert (asked.asked == "other_label").any()


def test_the_sample_is_seeded_and_by_label(sample_manifest):
    rows = sample_manifest.rows("test")
    some = sample_images(rows, 42, 4)
    assert some.equals(sample_images(rows, 42, 4)) and not some.equals(sample_images(rows, 1, 4))
    assert (some.groupby("label").size() >= 4).all() and len(some) < len(rows)
    assert len(sample_images(rows, 42, 10_000)) == len(rows)


def test_other_sizes(compact, few):
    table = resize_photos(compact, few, "test", (96,))
    assert set(zip(table.label, table.side, strict=True)) == {(label, side) for label in LABELS for side in (0, 96)}
    assert table.mean_iou.between(0, 1).all()
    assert (table.mean_joint_line_f1.notna() == (table.label == "joint_line")).all()
    own = ask_otherwise(compact, few, "test", n_drawn=1)
    own = own[(own.asked == "canonical") & (own.label == "crack")]
    assert own.prompt.unique().tolist() == [canonical_prompt("crack")]
    same = table[(table.label == "crack") & (table.side == 0)].mean_iou.item()
    assert same == pytest.approx(own.iou.mean())


def test_the_photo_itself_is_not_resized_and_copies_are(compact, few, monkeypatch):
    seen = []
    original = compact.predict
    monkeypatch.setattr(compact, "predict", lambda image, prompts: seen.append(image) or original(image, prompts))
    resize_photos(compact, few, "test", (96,))
    for row, own, copy in zip(sorted(few.table.image_id.unique()), seen[::2], seen[1::2], strict=True):
        record = few.table[few.table.image_id == row].iloc[0]
        assert np.array_equal(own, read_image(few.image_file(record)))
        assert max(copy.shape[:2]) == 96 and copy.shape[0] / copy.shape[1] == pytest.approx(
            record.height / record.width, abs=0.02
        )


def test_no_rows(compact, few):
    assert len(ask_otherwise(compact, few, "val")) == 0 == len(resize_photos(compact, few, "val"))
    assert len(summarise_questions(ask_otherwise(compact, few, "val"))) == 0
