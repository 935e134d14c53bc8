import pandas as pd
import pytest
from PIL import Image

from drywall_seg.config import run_folder_of
from drywall_seg.data.manifest import prepare
from drywall_seg.training.run import train_run
from drywall_seg.visualization import live
from drywall_seg.visualization.live import describe, plot_training, watch_training, watched_photos
from tests.training.runs import config_of, small


def test_six_photographs_of_every_label_and_always_the_same(sample_manifest):
    photos = watched_photos(sample_manifest)
    labels = [photo.label for photo in photos]  # val has but three photographs of joints, all with both labels
    assert labels == ["crack"] * 3 + ["taping_area"] * 2 + ["joint_line"]
    assert len({photo.photo_id for photo in photos}) == 6
    assert {photo.split for photo in photos} == {"val"} and all(photo.mask_area for photo in photos)
    shuffled = sample_manifest.table.sample(frac=1, random_state=3)
    again = watched_photos(type(sample_manifest)(shuffled, sample_manifest.data_root, sample_manifest.folder, {}))
    assert [p.image_id for p in again] == [p.image_id for p in photos]
    cracks = sample_manifest.table[sample_manifest.table.label == "crack"]
    only = type(sample_manifest)(cracks, sample_manifest.data_root, sample_manifest.folder, {})
    assert len(watched_photos(only)) == min(6, cracks[cracks.split == "val"].photo_id.nunique())


def test_the_picture_is_drawn_anew_after_each_epoch(project, monkeypatch):
    config = config_of(run_name="mine", epochs=3)
    manifest = small(prepare(config), 40)
    drawn = []
    plot = live.plot_training
    monkeypatch.setattr(live, "plot_training", lambda *a: drawn.append((len(a[0]), len(a[5]))) or plot(*a))
    train_run(config, manifest, watch_training(config, manifest))
    assert drawn == [(1, 1), (2, 2), (3, 3)]
    with Image.open(run_folder_of(config) / "training.png") as picture:
        assert picture.width == 1210 and picture.height > 800


class Handle:
    def __init__(self):
        self.updates = 0

    def update(self, picture):
        self.updates += 1
        assert picture.data.startswith(b"\x89PNG")


def test_in_a_notebook_one_picture_is_shown_and_updated(project, monkeypatch):
    config, handle, shown = config_of(run_name="mine", epochs=3), Handle(), []
    manifest = small(prepare(config), 12)
    monkeypatch.setattr(live, "get_ipython", lambda: object())
    monkeypatch.setattr(live, "display", lambda picture, display_id: shown.append(display_id) or handle)
    train_run(config, manifest, watch_training(config, manifest))
    assert shown == [True] and handle.updates == 2


@pytest.fixture
def history():
    row = {"learning_rate": 0.001234, "images_per_second": 15.55, "peak_memory_gb": 1.26, "best": True}
    return pd.DataFrame([{"epoch": 1, "train_loss": 0.5, **row, "seconds": 100.0}] * 2)


def test_how_fast_and_how_long_still(history):
    assert describe(history, 5) == (
        "epoch 2 of 5   learning rate 0.0012   15.6 images a second   peak memory 1.3 GB   about 5 min left"
    )
    assert describe(history.assign(seconds=20), 5).endswith("about 60 s left")
    assert "left" not in describe(history, 2)


def test_without_val_there_are_only_curves(history):
    figure = plot_training(history, pd.DataFrame({"step": [1, 2], "loss": [0.6, 0.4]}), 5, [], [], [])
    assert len(figure.subfigs) == 1 and len(figure.axes) == 2
