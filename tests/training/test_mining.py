import numpy as np
import pandas as pd

from drywall_seg.data.dataset import HARD_SHARE
from drywall_seg.inference.predict import Prediction
from drywall_seg.models.compact import new_compact
from drywall_seg.prompts import ABSENT_LABELS, PROMPTS
from drywall_seg.training.fit import fit, training_data
from drywall_seg.training.mining import KEPT_SHARE, add_hard_negatives, mine_hard_negatives, read_hard_negatives
from tests.training.runs import config_of, small

LABEL_OF = {prompts[0]: label for label, prompts in PROMPTS.items()}


class Fooled:
    """Sees an alarm in a photo that depends on its name and on what is asked for."""

    def __init__(self):
        self.asked = []

    def predict(self, path, prompts):
        self.asked.append((path, prompts))
        values = [(hash_of(path.name) + len(prompt)) % 97 / 97 for prompt in prompts]
        return [
            Prediction(p, np.full((4, 4), v, np.float32), None, 0.5, 0.0) for p, v in zip(prompts, values, strict=True)
        ]


def hash_of(text):
    return sum(text.encode())


def data_of(manifest, **settings):
    return training_data(new_compact(64), manifest, config_of(negative_share=0.5, **settings))


def test_the_largest_false_alarms_are_found(sample_manifest):
    data, predictor = data_of(sample_manifest), Fooled()
    data.epoch = 3
    found = mine_hard_negatives(predictor, data, n_photos=20)
    assert len(predictor.asked) == 20
    asked = {(path, prompt) for path, prompts in predictor.asked for prompt in prompts}
    values = sorted(((hash_of(path.name) + len(prompt)) % 97 / 97 for path, prompt in asked), reverse=True)
    assert len(found) == round(KEPT_SHARE * sum(len(prompts) for _, prompts in predictor.asked))
    assert np.allclose(found.false_alarm, values[: len(found)], atol=1e-6) and set(found.epoch) == {4}
    assert len(data.hard) == len(found)
    for (number, prompt), row in zip(data.hard, found.itertuples(), strict=True):
        assert data.records[number].image_id == row.image_id and prompt == row.prompt
    for path, prompts in predictor.asked:  # never for what the photo shows
        labels = data.labels_of[next(i for i, r in data.by_image.items() if sample_manifest.image_file(r) == path)]
        for label in (LABEL_OF[p] for p in prompts if p in LABEL_OF):
            assert label not in labels and all(label in ABSENT_LABELS[own] for own in labels)


def test_it_depends_on_seed_and_epoch_and_on_no_process(sample_manifest):
    data = data_of(sample_manifest)
    first, again = (mine_hard_negatives(Fooled(), data, n_photos=10) for _ in range(2))
    assert first.equals(again)
    data.epoch = 1
    assert not first.image_id.equals(mine_hard_negatives(Fooled(), data, n_photos=10).image_id)


def test_hard_negatives_are_drawn_more_often(sample_manifest):
    data = data_of(sample_manifest)
    hard = [(0, "segment elephant"), (5, "segment trousers")]
    counts = {"hard": 0, "negative": 0, "positive": 0}
    plain = [data[i] for i in range(len(data))]
    data.hard = hard
    for data.epoch in range(6):
        for index in range(len(data)):
            sample = data[index]
            if sample["prompt"] in dict((p, n) for n, p in hard):
                assert not sample["target"].any()
                counts["hard"] += 1
            elif not sample["target"].any():
                counts["negative"] += 1
            else:
                counts["positive"] += 1
    negatives = counts["hard"] + counts["negative"]
    assert abs(counts["hard"] / negatives - HARD_SHARE) < 0.1
    data.epoch, data.hard = 0, []
    assert all(np.array_equal(a["pixel_values"], data[i]["pixel_values"]) for i, a in enumerate(plain[:8]))


def test_a_hard_negative_brings_its_own_photo(sample_manifest):
    data = data_of(sample_manifest, crop_min=1.0)
    data.hard = [(3, "segment elephant")]
    alone = data_of(sample_manifest, crop_min=1.0)
    index = next(i for i in range(len(data)) if data[i]["prompt"] == "segment elephant")
    assert np.array_equal(data[index]["valid"], alone[3]["valid"])
    assert np.abs(data[index]["pixel_values"].mean() - alone[3]["pixel_values"].mean()) < 0.5


def test_the_list_is_written_by_epoch_and_not_twice(tmp_path):
    assert len(read_hard_negatives(tmp_path)) == 0
    rows = [pd.DataFrame({"epoch": [e], "image_id": ["a/b,c"], "prompt": ["x"], "false_alarm": [0.25]}) for e in (2, 3)]
    for found in (rows[0], rows[1], rows[1]):  # an epoch that was begun again
        add_hard_negatives(tmp_path, found)
    assert read_hard_negatives(tmp_path).equals(pd.concat(rows, ignore_index=True))


def test_a_run_mines_every_k_epochs(sample_manifest, tmp_path):
    config = config_of(epochs=5, mine_every=2, negative_share=0.4)
    fit(new_compact(64), small(sample_manifest, 12), config, tmp_path)
    found = read_hard_negatives(tmp_path)
    assert found.epoch.unique().tolist() == [3, 5]
    assert found.false_alarm.between(0, 1).all()
