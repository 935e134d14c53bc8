import pandas as pd
import pytest

from drywall_seg.models import COMPACT
from drywall_seg.runs import read_json, write_json
from drywall_seg.visualization.results import (
    STORED,
    collect_results,
    documents,
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
