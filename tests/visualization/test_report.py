import re
import shlex
from dataclasses import replace

import pandas as pd
import pytest
from click.testing import CliRunner

from drywall_seg.cli import main
from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import prepare
from drywall_seg.evaluation.evaluate import evaluate_run, metrics_table
from drywall_seg.inference import Predictor
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models import load_segmenter
from drywall_seg.notebooks import declared_parameters, notebook_file
from drywall_seg.prompts import LABELS, canonical_prompt
from drywall_seg.runs import read_json, write_json
from drywall_seg.visualization.html import table_of, text_of
from drywall_seg.visualization.report import EVALUATE_PARAMETERS, commands, write_report


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
        "Post-processing",
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


def test_what_post_processing_gains_is_said_also_where_it_is_nil(evaluated):
    config, manifest, folder = evaluated
    page = write_report(config, manifest).read_text()
    assert page.count(">none chosen<") == 6 and "Before delivery nothing is done" in page
    (folder / "tables" / "postprocessing.csv").unlink()  # a run that was evaluated before there was this table
    page = write_report(config, manifest).read_text()
    assert "none chosen" not in page and "Post-processing" not in page and "Breakdowns" in page


def test_a_warning_stands_at_the_head_and_names_are_escaped(evaluated):
    config, manifest, folder = evaluated
    metrics = read_json(folder / "metrics.json")
    write_json(folder / "metrics.json", metrics | {"warnings": ["The sentence <hardly> matters"]})
    page = write_report(config, manifest).read_text()
    assert page.index("The sentence &lt;hardly&gt; matters") < page.index('class="headline"')


class Blind(TorchBackend):
    """Answers every sentence as if it were asked for cracks."""

    def encode_prompts(self, prompts):
        return super().encode_prompts([canonical_prompt("crack")] * len(prompts))


def test_a_model_that_ignores_the_sentence_has_the_warning_at_its_head(project, monkeypatch):
    blind = Predictor(Blind(load_segmenter("compact", 192)), dict.fromkeys(LABELS, 0.2))
    monkeypatch.setattr("drywall_seg.evaluation.evaluate.run_predictor", lambda config: blind)
    config = resolve_config(run_name="blind")
    manifest = prepare(config)
    evaluate_run(config, manifest)
    page = write_report(config, manifest).read_text()
    warning = page.index('role="alert">The sentence hardly matters: on crack photos')
    assert warning < page.index('class="headline"')


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
    per_image = pd.read_csv(folder.parent / "other" / "per_image.csv")
    per_image.assign(image_id="x" + per_image.image_id).to_csv(folder.parent / "other" / "per_image.csv", index=False)
    page = write_report(config, manifest, [folder.parent / "other"]).read_text()
    assert "mine and other were scored on no image in common" in page and "verdict" not in page
    result = CliRunner().invoke(main, ["report", "mine", "nobody"])
    assert isinstance(result.exception, FileNotFoundError) and "nobody" in str(result.exception)


def test_commands(evaluated):
    config, _, folder = evaluated
    assert commands(config, folder) == ["drywall-seg run 03_evaluate -p preset compact --run-name mine"]
    trained = resolve_config(
        epochs=1, threshold_rule="recall at a false-alarm budget", outputs_root="a b", run_name="mine"
    )
    (folder / "history.csv").touch()
    write_json(folder / "config.json", trained.to_dict())
    train, again = commands(trained, folder, 0.3)
    rule = "'recall at a false-alarm budget'"
    given = f"-p preset compact -p outputs_root 'a b' -p epochs 1 -p threshold_rule {rule}"
    assert train == f"drywall-seg train {given} --run-name mine"
    assert again == "drywall-seg run 03_evaluate -p outputs_root 'a b' -p threshold 0.3 --run-name mine"
    declared = declared_parameters(notebook_file("03_evaluate"))
    assert set(EVALUATE_PARAMETERS) <= set(declared) and set(shlex.split(again)[4:-2:3]) <= set(declared)


def test_a_run_that_was_moved_keeps_its_report_with_it(evaluated):
    config, manifest, folder = evaluated
    folder.rename(folder.with_name("renamed"))
    result = CliRunner().invoke(main, ["report", "renamed"])
    assert result.exit_code == 0, result.output
    assert (folder.with_name("renamed") / "report.html").is_file() and not folder.exists()


def test_nothing_to_score_is_said(project):
    config = resolve_config(run_name="empty", image_size=64)
    manifest = prepare(config)
    manifest = replace(manifest, table=manifest.table[manifest.table.split != "test"].reset_index(drop=True))
    metrics, tables = evaluate_run(config, manifest)
    assert metrics_table(metrics).empty and tables["per_image"].empty
    page = write_report(config, manifest).read_text()
    assert "Nothing to score: the test part has no image" in page


def test_tables():
    table = table_of(pd.DataFrame({"a_b": [1.0, None], "c": ["x", "<y>"], "d": [None, None]}), pd.Series([False, True]))
    assert [c["name"] for c in table["columns"]] == ["a b", "c"] and [c["number"] for c in table["columns"]] == [
        True,
        False,
    ]
    assert [[c["text"] for c in row["cells"]] for row in table["rows"]] == [["1", "x"], ["", "<y>"]]
    assert [row["few"] for row in table["rows"]] == [False, True]
    kinds = table_of(pd.DataFrame({"a": [1], "b": ["x" * 30], "c": ["x" * 31], "e": [""]}))["rows"][0]["cells"]
    assert [cell["kind"] for cell in kinds] == ["number", "text", "long", "text"]
    assert table_of(pd.DataFrame({"a": pd.Series([], dtype=object)}))["rows"] == []
    assert text_of(-0.25) == "-0.250" and text_of(3) == "3" and text_of(float("nan")) == ""
