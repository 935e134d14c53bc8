import re

import pandas as pd
import pytest
from click.testing import CliRunner

from drywall_seg.cli import main
from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import prepare
from drywall_seg.evaluation.evaluate import evaluate_run
from drywall_seg.runs import read_json, write_json
from drywall_seg.visualization.html import table_of, text_of
from drywall_seg.visualization.report import commands, write_report


@pytest.fixture
def evaluated(project):
    config = resolve_config(run_name="mine", image_size=64)
    manifest = prepare(config)
    evaluate_run(config, manifest)
    return config, manifest, project / "outputs" / "mine"


def test_a_report_needs_nothing_else_and_shows_everything(evaluated):
    config, manifest, folder = evaluated
    page = write_report(config, manifest).read_text()
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?!["']?data:)[\w/]""", page)
    assert "http" not in re.sub(r"http://www\.w3\.org\S*", "", re.sub(r"data:image[^\"]*", "", page)).lower()
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "Runs",
        "Thresholds",
        "Precision, recall, calibration",
        "Breakdowns",
        "Other sentences",
        "Other sizes",
        "Pictures",
        "Lowest IoU",
        "Largest false alarms (share of the photo)",
        "Largest misses (share of the photo)",
        "Cost",
        "Settings and environment",
        "Made by",
    ]
    metrics = read_json(folder / "metrics.json")
    for label, values in metrics["labels"].items():
        name = "mean_joint_line_f1" if label == "joint_line" else "mean_iou"
        low, high = values["interval_95"][name]
        assert f"<b>{values[name]:.3f}</b>" in page and f"{low:.3f} to {high:.3f}" in page
    assert "clipseg_ft_e16_512_thr04" in page and 'class="few"' in page
    assert len(re.findall(r"<img [^>]*alt=\"[^\"]+\"", page)) == len(re.findall("<img ", page)) >= 7


def test_a_warning_stands_at_the_head_and_names_are_escaped(evaluated):
    config, manifest, folder = evaluated
    metrics = read_json(folder / "metrics.json")
    write_json(folder / "metrics.json", metrics | {"warnings": ["The sentence <hardly> matters"]})
    page = write_report(config, manifest).read_text()
    assert page.index("The sentence &lt;hardly&gt; matters") < page.index('class="headline"')


def test_the_command_makes_it_again_and_compares(evaluated):
    config, manifest, folder = evaluated
    other = resolve_config(**{**config.to_dict(), "run_name": "other", "threshold": 0.2})
    evaluate_run(other, manifest)
    write_report(config, manifest)
    alone = (folder / "report.html").read_text()
    result = CliRunner().invoke(main, ["report", "mine"])
    assert result.exit_code == 0, result.output
    assert (folder / "report.html").read_text() == alone
    result = CliRunner().invoke(main, ["report", "mine", "other"])
    assert result.exit_code == 0, result.output
    both = (folder / "report.html").read_text()
    assert "verdict" in both and "verdict" not in alone
    result = CliRunner().invoke(main, ["report", "mine", "nobody"])
    assert isinstance(result.exception, FileNotFoundError) and "nobody" in str(result.exception)


def test_commands(evaluated):
    config, _, folder = evaluated
    assert commands(config, folder) == [
        "drywall-seg run 03_evaluate -p preset compact -p image_size 64 --run-name mine"
    ]
    (folder / "history.csv").touch()
    assert commands(config, folder) == [
        "drywall-seg train -p preset compact -p image_size 64 --run-name mine",
        "drywall-seg run 03_evaluate --run-name mine",
    ]


def test_tables():
    table = table_of(pd.DataFrame({"a_b": [1.0, None], "c": ["x", "<y>"], "d": [None, None]}), pd.Series([False, True]))
    assert [c["name"] for c in table["columns"]] == ["a b", "c"] and [c["number"] for c in table["columns"]] == [
        True,
        False,
    ]
    assert [[c["text"] for c in row["cells"]] for row in table["rows"]] == [["1", "x"], ["", "<y>"]]
    assert [row["few"] for row in table["rows"]] == [False, True]
    assert text_of(-0.25) == "-0.250" and text_of(3) == "3" and text_of(float("nan")) == ""
