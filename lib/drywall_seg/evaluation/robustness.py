"""What becomes of a mask when the question or the photo's size changes, and nothing else."""

import numpy as np
import pandas as pd

from drywall_seg.data.manifest import Manifest
from drywall_seg.evaluation.collect import sample_images, unseen_rows
from drywall_seg.evaluation.metrics import iou, mask_counts
from drywall_seg.evaluation.thin import joint_line_scores
from drywall_seg.images import Letterbox, read_image, read_mask
from drywall_seg.inference.predict import Predictor
from drywall_seg.paraphrases import held_out_absent, held_out_sentences
from drywall_seg.prompts import ABSENT_LABELS, LABELS, canonical_prompt
from drywall_seg.runs import progress

SIDES = (256, 1280)
ASKED = ("canonical", "paraphrase", "nothing_annotated", "other_label", "absent")
COLUMNS = "image_id photo_id photo_label label asked prompt presence area iou iou_with_right".split()
BLIND = 0.5
"""IoU of the masks for the wrong and for the right sentence from which on a model counts as blind to sentences."""


def ask_otherwise(
    predictor: Predictor, manifest: Manifest, split: str, seed: int = 42, n_drawn: int = 4, n_images: int = 60
) -> pd.DataFrame:
    """Asks a sample of a split's photos in other words, for another label, and for things that are on no wall.

    The words and things are those that training never sees (`paraphrases.held_out_*`). Each photo gets the
    canonical sentence of its labels, `n_drawn` others for each of them that has a target, the canonical sentence of
    every label that is known to be absent, and `n_drawn` absent things. Photographs that the model knows are left out.

    Returns:
        A table with columns image_id, photo_id, photo_label (the first of the photo's), label (the one asked for, ""
        for a thing), asked (one of `ASKED`), prompt, presence, area (share of the photo in the delivered mask), iou
        (with the target; NaN for what is not there) and, for other labels, iou_with_right: of this mask with the one
        for the photo's own label, which a model that ignores the sentence has near 1 (NaN where that one is empty).
    """
    results = []
    rows = sample_images(unseen_rows(predictor, manifest, split)[0], seed, n_images)
    for number, (image_id, group) in enumerate(progress(rows.groupby("image_id"), "other words", "photo")):
        rng = np.random.default_rng((seed, number))
        truths = {row.label: read_mask(manifest.mask_file(row)) for row in group.itertuples()}
        questions = _questions(truths, rng, n_drawn)
        photo = manifest.image_file(next(group.itertuples()))
        answers = predictor.predict(photo, [text for _, _, text in questions])
        right = answers[0].mask > 0
        about = {"image_id": image_id, "photo_id": group.photo_id.iloc[0], "photo_label": group.label.iloc[0]}
        for (label, asked, text), answer in zip(questions, answers, strict=True):
            result = {**about, "label": label, "asked": asked, "prompt": text, "presence": answer.presence}
            result["area"] = float((answer.mask > 0).mean())
            if asked in ("canonical", "paraphrase"):
                result["iou"] = float(iou(*mask_counts(answer.mask, truths[label])))
            if asked == "other_label" and right.any():
                result["iou_with_right"] = float(iou(*mask_counts(answer.mask, right)))
            results.append(result)
    return pd.DataFrame(results, columns=COLUMNS)


def _questions(truths: dict[str, np.ndarray], rng: np.random.Generator, n_drawn: int) -> list[tuple[str, str, str]]:
    """Returns label, kind and sentence of each question; the first is the canonical one of the first label."""
    kinds = {label: "canonical" if truth.any() else "nothing_annotated" for label, truth in truths.items()}
    questions = [(label, kind, canonical_prompt(label)) for label, kind in kinds.items()]
    for label in (label for label, kind in kinds.items() if kind == "canonical"):
        known = held_out_sentences(label)
        words = rng.choice(known, min(n_drawn, len(known)), replace=False)
        questions += [(label, "paraphrase", str(text)) for text in words]
    missing = [o for o in LABELS if all(o in ABSENT_LABELS[label] for label in truths)]
    questions += [(label, "other_label", canonical_prompt(label)) for label in missing]
    return questions + [("", "absent", str(text)) for text in rng.choice(held_out_absent(), n_drawn, replace=False)]


def summarise_questions(table: pd.DataFrame) -> pd.DataFrame:
    """Summarises `ask_otherwise`'s table: one row for each kind of question and label asked for.

    Returns:
        Columns asked, label, n_images, n_asked, mean_area, share_with_mask (of the answers, that masked anything),
        mean_presence, mean_iou and mean_iou_with_right (NaN where there are none), and spread: the standard deviation
        over the sentences for one photo, the canonical one among them, its mean over photos (paraphrases only).
    """
    groups = table.assign(masked=table.area > 0).groupby(["asked", "label"], sort=False)
    summary = groups.agg(
        n_images=("image_id", "nunique"),
        n_asked=("prompt", "size"),
        mean_area=("area", "mean"),
        share_with_mask=("masked", "mean"),
        mean_presence=("presence", "mean"),
        mean_iou=("iou", "mean"),
        mean_iou_with_right=("iou_with_right", "mean"),
    ).reset_index()
    there = table[table.asked.isin(["canonical", "paraphrase"])]
    spread = there.groupby(["label", "image_id"]).iou.std(ddof=0).groupby("label").mean()
    summary["spread"] = summary.label.map(spread).where(summary.asked == "paraphrase")
    return summary.sort_values("asked", key=lambda asked: asked.map(ASKED.index), kind="stable", ignore_index=True)


def prompt_warnings(table: pd.DataFrame) -> list[str]:
    """Returns a warning for each label whose photos give nearly the same mask whatever is asked for."""
    wrong = table[table.asked == "other_label"].groupby("photo_label").iou_with_right.mean()
    return [
        f"The sentence hardly matters: on {label} photos another label's sentence gives the same mask (IoU {value:.2f})"
        for label, value in wrong.items()
        if value >= BLIND
    ]


def resize_photos(predictor: Predictor, manifest: Manifest, split: str, sides: tuple[int, ...] = SIDES) -> pd.DataFrame:
    """Scores the delivered masks of a split on copies of its photos in other sizes, beside the photos themselves.

    Photo and target are resized so that the longer side is one of `sides`, in pixels; a target's pixel is kept where at
    least half of it is target. Photographs that the model knows are left out.

    Returns:
        One row for each label and side (0 for the photo's own): columns label, side, n_images, mean_iou and
        mean_joint_line_f1 (of the centre lines; for joint_line only).
    """
    results = []
    rows, _ = unseen_rows(predictor, manifest, split)
    for _, group in progress(rows.groupby("image_id"), "other sizes", "photo"):
        records = list(group.itertuples())
        photo = read_image(manifest.image_file(records[0]))
        truths = [read_mask(manifest.mask_file(row)) for row in records]
        prompts = [canonical_prompt(row.label) for row in records]
        for side in (0, *sides):
            box = Letterbox.fit(photo.shape[:2], side or max(photo.shape[:2]))
            answers = predictor.predict(box.resize(photo), prompts)
            for row, answer, truth in zip(records, answers, truths, strict=True):
                target = box.resize(truth) >= 128
                result = {"label": row.label, "side": side, "iou": float(iou(*mask_counts(answer.mask, target)))}
                if row.label == "joint_line":
                    result |= joint_line_scores(answer.mask, target)
                results.append(result)
    table = pd.DataFrame(results, columns=["label", "side", "iou", "joint_line_f1"])
    groups = table.groupby(["label", "side"])
    return groups.agg(
        n_images=("iou", "size"), mean_iou=("iou", "mean"), mean_joint_line_f1=("joint_line_f1", "mean")
    ).reset_index()
