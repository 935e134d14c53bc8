import pandas as pd
import pytest

from drywall_seg.models import COMPACT
from drywall_seg.runs import read_json, write_json
from drywall_seg.visualization.results import (
    STORED,
    collect_other,
    collect_results,
    documents,
    postprocessing_table,
    protocol_table,
    public_table,
    question_table,
    render,
    score_table,
    size_table,
)


@pytest.fixture
def run(tmp_path):
    crack = {"n_images": 3, "n_photographs": 2, "mean_iou": 0.5, "mean_dice": 0.6004}
    crack["interval_95"] = {"mean_iou": [0.4, 0.61], "mean_dice": None}
    write_json(tmp_path / "metrics.json", {"labels": {"crack": crack}})
    write_json(tmp_path / "environment.json", {"device": "an abacus"})
    questions = [
        ["a", "p", "crack", "canonical", "segment crack", 0.9, 0.1, 0.5],
        ["b", "p", "crack", "canonical", "segment crack", 0.9, 0.3, 0.7],
        ["a", "p", "", "absent", "segment elephant", 0.1, 0.0004, None],
    ]
    columns = ["image_id", "photo_id", "label", "asked", "prompt", "presence", "area", "iou"]
    (tmp_path / "tables").mkdir()
    table = pd.DataFrame(questions, columns=columns).assign(iou_with_right=None)
    table.to_csv(tmp_path / "tables" / "questions.csv", index=False)
    sizes = [["crack", 0, 9, 0.5, None], ["crack", 256, 9, 0.4, None]]
    sizes += [["joint_line", 0, 9, 0.5, 0.96], ["joint_line", 256, 9, 0.4, 0.95]]
    columns = ["label", "side", "n_images", "mean_iou", "mean_joint_line_f1"]
    pd.DataFrame(sizes, columns=columns).to_csv(tmp_path / "tables" / "sizes.csv", index=False)
    return tmp_path


def test_tables(run):
    results = collect_results(run)
    assert results["device"] == "an abacus"
    last = score_table(results).splitlines()[-1]
    assert last.startswith("| `crack` |") and last.endswith("| 3 | 2 | 0.500 (0.400 to 0.610) | 0.600 |  |")
    canonical, absent = question_table(results).splitlines()[2:]
    assert canonical.endswith("| `crack` | 2 | 2 | 20.00% | 0.600 |") and absent.endswith("|  | 1 | 1 | 0.04% |  |")
    head, _, crack, line = size_table(results).splitlines()
    assert head == "| label | score | own size | 256 px |"
    assert crack == "| `crack` | mean IoU | 0.500 | 0.400 |"
    assert line == "| `joint_line` | centre-line F1 | 0.960 | 0.950 |"


def test_gains_of_post_processing_on_test(run):
    assert collect_results(run)["postprocessing"] == []  # evaluated before there was such a table
    row = {"split": "test", "label": "crack", "what": "chosen", "settings": "none chosen", "n_images": 3, "low": None}
    row |= {"mean_dice_raw": 0.6, "mean_dice": 0.6, "gain": 0.0, "high": None, "mean_iou_raw": 0.5, "mean_iou": 0.5}
    boxes = {**row, "label": "taping_area", "what": "boxes turned", "settings": "each part its box, turned"}
    boxes |= {"mean_dice": 0.57, "mean_iou": 0.46, "gain": -0.03, "low": -0.05, "high": 0.01}
    table = pd.DataFrame([row, boxes, {**boxes, "split": "val"}])
    table.to_csv(run / "tables" / "postprocessing.csv", index=False)
    _, _, crack, taping = postprocessing_table(collect_results(run)).splitlines()
    assert crack == "| `crack` | chosen | none chosen | 3 | 0.500 / 0.600 | 0.500 / 0.600 | +0.000 |"
    assert taping.endswith("| 0.500 / 0.600 | 0.460 / 0.570 | -0.030 (-0.050 to +0.010) |")


def metrics_of(crack, taping, leaked):
    def part(score, n):
        interval = {"mean_iou": [score - 0.1, score + 0.1]}
        return {"n_images": n, "mean_iou": score, "mean_dice": score + 0.1, "interval_95": interval}

    labels = {"crack": part(crack, 30), "taping_area": part(taping, 10)}
    for values in labels.values():
        values["share_trained_on"] = leaked
    overall = part((3 * crack + taping) / 4, 40)
    return {"split": "in words", "overall": overall, "labels": labels, "val": {"labels": {"crack": part(0.55, 201)}}}


def test_both_protocols_stand_beside_the_reference(tmp_path):
    write_json(tmp_path / "by-image" / "metrics.json", metrics_of(0.5, 0.7, 0.5))
    write_json(tmp_path / "by-image" / "config.json", {"split": "image"})
    results = {"metrics": metrics_of(0.4, 0.6, 0.0), "others": [collect_other(tmp_path / "by-image")]}
    lines = protocol_table(results).splitlines()
    assert "| image | 959 | about 93% of photographs | 0.4149 / 0.5618 | 0.4155 / 0.5607 |" in lines[3]
    assert lines[-3].endswith("| image | 100 | nothing trained | 0.0000 |  | 0.0000 |")
    assert lines[-2] == "| **by-image** | image | 40 | 50% / 50% | 0.550 / 0.650 | 0.500 / 0.600 | 0.700 / 0.800 |"
    assert (
        lines[-1]
        == "| **compact, as shipped** | photo | 40 | 0% / 0% | 0.450 / 0.550 | 0.400 / 0.500 | 0.600 / 0.700 |"
    )


def test_only_a_run_on_the_publishers_split_stands_beside_the_public_attempts(tmp_path):
    others = []
    for split in ("image", "publisher"):
        write_json(tmp_path / split / "metrics.json", metrics_of(0.5, 0.7, 0.5))
        write_json(tmp_path / split / "config.json", {"split": split})
        others.append(collect_other(tmp_path / split))
    lines = public_table({"others": others}).splitlines()
    assert [line.startswith("| **") for line in lines[2:]] == [False] * 4 + [True]
    assert lines[-1] == "| **publisher**, sentence | 201 | 0.550 / 0.650 | 0.450 to 0.650 |"


def test_only_what_stands_between_the_marks_changes(run):
    results = collect_results(run)
    text = render(results, "before\n<!-- sizes -->\nold\n<!-- end of sizes -->\nafter\n")
    assert text == f"before\n<!-- sizes -->\n{size_table(results)}\n<!-- end of sizes -->\nafter\n"
    assert render(results, text) == text
    assert render(results, "no mark") == "no mark"


def test_the_documents_show_what_was_measured():
    results = read_json(COMPACT / STORED)
    for path in documents():
        text = path.read_text()
        assert render(results, text) == text, f"{path}: run `python -m drywall_seg.visualization.results RUN_FOLDER`"
        assert score_table(results) in text
