"""Hard negatives: what is not in a training photo, but the model sees there, is asked for more often."""

from pathlib import Path

import numpy as np
import pandas as pd
from accelerate.utils import gather_object

from drywall_seg.data.dataset import PromptedDataset
from drywall_seg.inference.predict import Predictor
from drywall_seg.paraphrases import draw_absent
from drywall_seg.prompts import ABSENT_LABELS, canonical_prompt
from drywall_seg.runs import progress, write_csv

FILE = "hard_negatives.csv"
COLUMNS = ["epoch", "image_id", "prompt", "false_alarm"]
N_PHOTOS, N_THINGS = 160, 3
"""How many photos are looked at each time, and how many absent things each is asked for."""
KEPT_SHARE = 0.2
"""Of the questions asked, the worst that become hard negatives."""


def mine_hard_negatives(
    predictor: Predictor, dataset: PromptedDataset, part: tuple[int, int] = (0, 1), n_photos: int = N_PHOTOS
) -> pd.DataFrame:
    """Asks a sample of the training photos for what they do not show, and puts the worst answers into `dataset.hard`.

    Asked are the labels that are known to be absent, and things that are on no wall. The sample is drawn from
    (seed, epoch); `part` is the number of this process and how many there are: each asks its own photos.

    Returns:
        Columns `COLUMNS`, worst first; false_alarm is the mean probability over the photo's pixels, in [0, 1].
    """
    rng = np.random.default_rng((dataset.seed, dataset.epoch))
    image_ids = sorted(dataset.by_image)
    sample = rng.choice(len(image_ids), min(n_photos, len(image_ids)), replace=False)
    asked = []
    for number in progress(sample[part[0] :: part[1]].tolist(), "hard negatives", "photo"):
        image_id = image_ids[number]
        others = set.intersection(*(set(ABSENT_LABELS[label]) for label in dataset.labels_of[image_id]))
        own = np.random.default_rng((dataset.seed, dataset.epoch, number))
        prompts = [canonical_prompt(label) for label in sorted(others)] + [draw_absent(own) for _ in range(N_THINGS)]
        answers = predictor.predict(dataset.manifest.image_file(dataset.by_image[image_id]), prompts)
        asked += [(dataset.epoch + 1, image_id, answer.prompt, float(answer.probs.mean())) for answer in answers]
    if part[1] > 1:
        asked = gather_object(asked)
    table = pd.DataFrame(asked, columns=COLUMNS).sort_values(["false_alarm", "image_id", "prompt"], ascending=False)
    table = table.head(round(KEPT_SHARE * len(table))).reset_index(drop=True)
    numbers = {record.image_id: number for number, record in enumerate(dataset.records)}
    dataset.hard = [(numbers[image_id], prompt) for image_id, prompt in zip(table.image_id, table.prompt, strict=True)]
    return table


def add_hard_negatives(folder: Path, found: pd.DataFrame) -> None:
    """Adds what was found before an epoch to the run's list, in the place of what it had for that epoch."""
    before = read_hard_negatives(folder)
    others = before[~before.epoch.isin(found.epoch)]
    write_csv(folder / FILE, pd.concat([others, found], ignore_index=True) if len(others) else found)


def read_hard_negatives(folder: Path) -> pd.DataFrame:
    """Returns a run's hard negatives of all epochs; no rows where none were looked for."""
    path = folder / FILE
    return pd.read_csv(path, dtype={"image_id": str}) if path.is_file() else pd.DataFrame(columns=COLUMNS)
