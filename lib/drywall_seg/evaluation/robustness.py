"""What becomes of a mask when the question or the photo's size changes, and nothing else."""

import numpy as np
import pandas as pd

from drywall_seg.config import RunConfig, run_folder_of
from drywall_seg.data.manifest import Manifest
from drywall_seg.evaluation.evaluate import run_predictor, unseen_rows
from drywall_seg.evaluation.metrics import iou, mask_counts
from drywall_seg.evaluation.thin import centre_line_counts, line_scores
from drywall_seg.images import Letterbox, read_image, read_mask
from drywall_seg.inference.predict import Predictor
from drywall_seg.paraphrases import held_out_absent, held_out_sentences
from drywall_seg.prompts import ABSENT_LABELS, LABELS, canonical_prompt
from drywall_seg.runs import progress, write_csv

SIDES = (256, 1280)
ASKED = ("canonical", "paraphrase", "other_label", "absent")


def ask_otherwise(
    predictor: Predictor, manifest: Manifest, split: str, seed: int = 42, n_drawn: int = 4
) -> pd.DataFrame:
    """Asks each photo of a split in other words, for another label, and for things that are on no wall.

    The words and things are those that training never sees (`paraphrases.held_out_*`). Each photo gets the
    canonical sentence of its labels, `n_drawn` others for each of them, the canonical sentence of every label
    that is known to be absent, and `n_drawn` absent things. Photographs that the model knows are left out.

    Returns:
        A table with columns image_id, photo_id, label (of the row, or the one asked for), asked (one of `ASKED`),
        prompt, presence, area (share of the photo in the delivered mask), iou (NaN for what is not there).
    """
    results = []
    rows, _ = unseen_rows(predictor, manifest, split)
    for number, (image_id, group) in enumerate(progress(rows.groupby("image_id"), "other words", "photo")):
        rng = np.random.default_rng((seed, number))
        truths = {row.label: read_mask(manifest.mask_file(row)) for row in group.itertuples()}
        missing = [o for o in LABELS if all(o in ABSENT_LABELS[label] for label in truths)]
        questions = [(label, "canonical", canonical_prompt(label)) for label in truths]
        for label in truths:
            words = rng.choice(held_out_sentences(label), n_drawn, replace=False)
            questions += [(label, "paraphrase", str(text)) for text in words]
        questions += [(label, "other_label", canonical_prompt(label)) for label in missing]
        questions += [("", "absent", str(text)) for text in rng.choice(held_out_absent(), n_drawn, replace=False)]
        photo = manifest.image_file(next(group.itertuples()))
        answers = predictor.predict(photo, [text for _, _, text in questions])
        for (label, asked, text), answer in zip(questions, answers, strict=True):
            result = {"image_id": image_id, "photo_id": group.photo_id.iloc[0], "label": label, "asked": asked}
            result |= {"prompt": text, "presence": answer.presence, "area": float((answer.mask > 0).mean())}
            counts = mask_counts(answer.mask, truths[label]) if label in truths else None
            results.append(result | {"iou": float(iou(*counts)) if counts else np.nan})
    columns = ["image_id", "photo_id", "label", "asked", "prompt", "presence", "area", "iou"]
    return pd.DataFrame(results, columns=columns)


def summarise_questions(table: pd.DataFrame) -> pd.DataFrame:
    """Summarises `ask_otherwise`'s table: one row for each kind of question and label.

    Returns:
        Columns asked, label, n_images, n_asked, mean_area, mean_presence, mean_iou (NaN for what is not there).
    """
    groups = table.groupby(["asked", "label"], sort=False)
    summary = groups.agg(
        n_images=("image_id", "nunique"),
        n_asked=("prompt", "size"),
        mean_area=("area", "mean"),
        mean_presence=("presence", "mean"),
        mean_iou=("iou", "mean"),
    )
    return summary.reset_index().sort_values("asked", key=lambda asked: asked.map(ASKED.index), kind="stable")


def resize_photos(predictor: Predictor, manifest: Manifest, split: str, sides: tuple[int, ...] = SIDES) -> pd.DataFrame:
    """Scores the delivered masks of a split on copies of its photos in other sizes, beside the photos themselves.

    Photo and target are resized so that the longer side has the wanted length; a target's pixel is kept where at
    least half of it is target. Photographs that the model knows are left out.

    Args:
        predictor: With the thresholds to use.
        manifest: The data.
        split: val or test.
        sides: Lengths of the longer side, in pixels.

    Returns:
        One row for each label and side (0 for the photo's own): columns label, side, n_images, mean_iou and
        mean_line_f1 (of the centre lines; for joint_line only).
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
                    result |= line_scores(centre_line_counts(answer.mask, target))
                results.append(result)
    table = pd.DataFrame(results, columns=["label", "side", "iou", "line_f1"])
    groups = table.groupby(["label", "side"])
    return groups.agg(
        n_images=("iou", "size"), mean_iou=("iou", "mean"), mean_line_f1=("line_f1", "mean")
    ).reset_index()


def check_run(config: RunConfig, manifest: Manifest) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Asks a run otherwise on test, and resizes val; writes `questions.csv` and `sizes.csv` into its folder.

    Returns:
        The tables of `summarise_questions` and `resize_photos`.
    """
    folder, predictor = run_folder_of(config), run_predictor(config)
    questions = ask_otherwise(predictor, manifest, "test", config.seed)
    sizes = resize_photos(predictor, manifest, "val")
    write_csv(folder / "questions.csv", questions)
    write_csv(folder / "sizes.csv", sizes)
    return summarise_questions(questions), sizes
