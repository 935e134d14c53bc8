import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import prepare
from drywall_seg.evaluation.evaluate import evaluate_run
from drywall_seg.inference import Prediction
from drywall_seg.runs import read_json, write_json
from drywall_seg.visualization.charts import plot_history
from drywall_seg.visualization.panels import (
    PREDICTION_COLOR,
    TRUTH_COLOR,
    choose_examples,
    overlay,
    plot_examples,
    plot_grid,
    plot_predictions,
    save_panels,
)


def rgb(color):
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


@pytest.mark.parametrize("wall", [255, 200, 20])
def test_a_hairline_is_seen_in_a_thumbnail(wall):
    image, mask = np.full((640, 640, 3), wall, np.uint8), np.zeros((640, 640), np.uint8)
    mask[:, 320] = 255
    drawn = overlay(image, mask, TRUTH_COLOR)
    thumbnail = np.asarray(Image.fromarray(drawn).resize((160, 160), Image.Resampling.BOX), float)
    line, beside = thumbnail[80, 78:82], thumbnail[80, 20]
    assert np.linalg.norm(line - beside, axis=1).max() > 80
    assert np.ptp(beside) <= 1  # the wall itself has no colour


def test_an_empty_mask_colours_nothing():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.ptp(overlay(image, np.zeros((20, 30), np.uint8), TRUTH_COLOR), axis=2).max() <= 1


def test_the_two_colours_differ_for_every_kind_of_colour_blindness():
    # Brettel's simplification: what remains of the difference without the red-green and the blue-yellow axis.
    difference = rgb(TRUTH_COLOR) - rgb(PREDICTION_COLOR)
    assert abs(difference[2]) > 100  # blue, left to those who cannot tell red from green
    assert abs(difference[0]) > 100  # red, left to those who cannot tell blue from yellow


def rows(ious, label="crack", n_target=5):
    return [
        {"image_id": f"{label}/{i}", "label": label, "iou": value, "tp": n_target, "fn": 0}
        for i, value in enumerate(ious)
    ]


def test_best_median_and_worst_of_each_label():
    table = pd.DataFrame(
        rows([0.3, 0.9, 0.1, 0.5, 0.4]) + rows([1.0, 1.0], n_target=0) + rows([0.7], label="joint_line")
    )
    chosen = choose_examples(table)
    assert list(zip(chosen["label"], chosen["rank"], chosen.iou, strict=True)) == [
        ("crack", "best", 0.9),
        ("crack", "median", 0.4),
        ("crack", "worst", 0.1),
        ("joint_line", "worst", 0.7),
    ]


def test_panels_of_a_run(project):
    config = resolve_config(run_name="mine", image_size=64)
    manifest = prepare(config)
    with pytest.raises(FileNotFoundError, match="03_evaluate"):
        save_panels(config, manifest)
    evaluate_run(config, manifest)
    figures = save_panels(config, manifest)
    assert list(figures) == ["crack", "taping_area", "joint_line"]
    for label, figure in figures.items():
        with Image.open(project / "outputs" / "mine" / "panels" / f"{label}.png") as picture:
            assert picture.width > 1000
        titles = [axis.get_title(loc="left") for axis in figure.axes]
        assert titles[:2] == ["Original", "Ground truth"]
        assert "IoU" in titles[2]
        assert "threshold" in titles[2]
    file = project / "outputs" / "mine" / "metrics.json"
    for cut, words in ((0.0, r"threshold \d\.\d\d"), (1.1, r"emptied: presence \d\.\d{3} is under the cut of 1\.100")):
        write_json(file, read_json(file) | {"presence_cut": cut})
        assert re.search(f"{words}$", save_panels(config, manifest)["crack"].axes[2].get_title(loc="left"))
    examples = plot_examples(manifest)
    assert any("box" in axis.get_title(loc="left") for axis in examples.axes)


def test_predictions_and_empty_ones():
    image, none = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    answers = [Prediction(p, none / 255, m, 0.5, 0.1) for p, m in (("crack", none), ("seam", none + 255))]
    titles = [axis.get_title(loc="left") for axis in plot_predictions([(image, answers)]).axes]
    assert titles == ["Original", "crack: nothing found", "seam: 100.0% of the photo"]


def test_a_long_file_name_does_not_run_into_the_next_title(tmp_path):
    image, none = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    path = tmp_path / f"{'x' * 80}_end.png"
    Image.fromarray(image).save(path)
    figure = plot_predictions([(path, [Prediction("crack", none / 255, none, 0.5, 0.1)])])
    figure.canvas.draw()
    title = figure.axes[0].title if figure.axes[0].title.get_text() else figure.axes[0]._left_title
    assert title.get_text().startswith("xxx")
    assert title.get_text().endswith("x_end.png")
    assert title.get_window_extent().x1 < figure.axes[1].get_window_extent().x0


def test_history_marks_the_best_epoch():
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "train_loss": [3, 2, 1],
            "best": [True, True, False],
            "val_crack_mean_iou": [0.1, 0.4, 0.3],
        }
    )
    assert plot_history(history).axes[1].get_title(loc="left") == "best epoch: 2"
    assert plot_history(history.iloc[:0]).axes


def test_nothing_to_show_is_said():
    assert "Nothing to show" in plot_grid([]).texts[0].get_text()
