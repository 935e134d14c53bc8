from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from drywall_seg.cli import main
from drywall_seg.config import resolve_config, run_folder_of
from drywall_seg.notebooks import declared_parameters, notebook_file
from drywall_seg.presets import PRESETS
from drywall_seg.runs import write_csv, write_json
from drywall_seg.sweep import rank, read_sweep, run_sweep

ROOT = Path(__file__).parents[1]
TEXT = """
name: tries
parameters: {preset: compact, epochs: 1}
grid: {learning_rate: [0.001, 0.002]}
seeds: [1, 2]
"""


@pytest.fixture
def file(project):
    path = project / "tries.yaml"
    path.write_text(TEXT)
    return path


def fake(scores, calls, failing=()):
    """Runs no notebook, but leaves what it would."""

    def run(name, parameters):
        calls.append((name, parameters["run_name"]))
        if parameters["run_name"] in failing:
            raise FloatingPointError("the loss is nan\nand more")
        folder = run_folder_of(resolve_config(run_name=parameters["run_name"]))
        if name == "02_train":
            write_json(folder / "config.json", resolve_config(**parameters).to_dict())
            write_csv(folder / "history.csv", pd.DataFrame({"epoch": [1]}))
            write_json(folder / "checkpoint" / "thresholds.json", {"presence_cut": 0.5})
        else:
            value = scores[parameters["run_name"]]
            overall = {"mean_iou": value, "mean_dice": value + 0.2}
            test = {"mean_iou": 1 - value, "mean_dice": 1 - value}
            about = {"footprint": {"training_seconds": 7.0}, "val": {"overall": overall}, "overall": test}
            write_json(folder / "metrics.json", about)

    return run


NAMES = [f"tries-learning_rate-{rate}-s{seed}" for rate in ("0.001", "0.002") for seed in (1, 2)]
SCORES = dict(zip(NAMES, (0.3, 0.5, 0.6, 0.6), strict=True))


def test_every_combination_is_a_run_of_its_own(file):
    name, runs = read_sweep(file)
    assert name == "tries" and [r["parameters"]["run_name"] for r in runs] == NAMES
    assert [r["setting"] for r in runs] == ["learning_rate=0.001"] * 2 + ["learning_rate=0.002"] * 2
    assert runs[3]["parameters"] == {
        "preset": "compact", "epochs": 1, "learning_rate": 0.002, "seed": 2, "run_name": NAMES[3]
    }  # fmt: skip


def test_runs_are_ranked_by_val_and_not_by_test(file, project):
    calls = []
    ranking, folder = run_sweep(file, fake(SCORES, calls))
    assert calls == [(step, name) for name in NAMES for step in ("02_train", "03_evaluate")]
    assert ranking.setting.tolist() == ["learning_rate=0.002", "learning_rate=0.001"]
    assert ranking.val_mean.tolist() == pytest.approx([0.7, 0.5])
    assert ranking.val_spread.tolist() == pytest.approx([0, 0.02**0.5])
    assert ranking.test_iou[0] < ranking.test_iou[1]
    assert folder == project / "outputs" / "tries"
    assert {p.name for p in folder.iterdir()} == {"sweep.csv", "ranking.csv", "ranking.png"}
    assert pd.read_csv(folder / "ranking.csv").setting.tolist() == ranking.setting.tolist()


def test_what_is_finished_is_skipped_and_a_failure_stops_no_other(file):
    calls = []
    ranking, folder = run_sweep(file, fake(SCORES, calls, failing=[NAMES[1]]))
    assert len(calls) == 7 and ranking.set_index("setting").n_failed.to_dict() == {
        "learning_rate=0.001": 1, "learning_rate=0.002": 0
    }  # fmt: skip
    table = pd.read_csv(folder / "sweep.csv")
    assert table.error[1] == "FloatingPointError: the loss is nan" and table.error.isna().sum() == 3
    calls.clear()
    ranking, _ = run_sweep(file, fake(SCORES, calls))
    assert calls == [("02_train", NAMES[1]), ("03_evaluate", NAMES[1])]
    assert ranking.n_seeds.tolist() == [2, 2] and ranking.n_failed.sum() == 0
    file.write_text(TEXT.replace("epochs: 1", "epochs: 2"))  # other settings under the same names
    calls.clear()
    run_sweep(file, fake(SCORES, calls))
    assert len(calls) == 8


VARIANTS = """
name: losses
parameters: {preset: compact, epochs: 1}
variants: [{}, {focal_gamma: 2.0, bce_weight: 0.6}]
evaluate: false
"""


def test_variants_of_any_setting_ranked_by_val_alone(file, project):
    file.write_text(VARIANTS)
    calls = []

    def run(name, parameters):
        calls.append((name, parameters))
        config = resolve_config(
            **{n: v for n, v in parameters.items() if n != "recipe"}, **parameters.get("recipe", {})
        )
        folder = run_folder_of(config)
        write_json(folder / "config.json", {**config.to_dict(), "stored_views": 0})  # as a run fills it in
        write_json(folder / "checkpoint" / "thresholds.json", {"presence_cut": 0.5})
        value = 0.2 + config.focal_gamma / 10
        rows = {
            "best": [True, True, False],
            "val_overall_mean_iou": [0, value, 0.1],
            "val_overall_mean_dice": [0, 1, 0],
        }
        write_csv(folder / "history.csv", pd.DataFrame(rows).assign(seconds=2.0))

    ranking, _ = run_sweep(file, run)
    assert [name for name, _ in calls] == ["02_train"] * 2  # test is not looked at
    presets = [parameters["preset"] for _, parameters in calls]
    assert presets == ["compact", {"preset": "compact", "focal_gamma": 2.0, "bce_weight": 0.6}]
    assert all(set(parameters) <= set(declared_parameters(notebook_file("02_train"))) for _, parameters in calls)
    assert ranking.setting.tolist() == ["focal_gamma=2.0 bce_weight=0.6", "as given"]
    assert ranking.val_mean.tolist() == pytest.approx([0.7, 0.6]) and ranking.test_iou.isna().all()
    run_sweep(file, lambda *_: pytest.fail("run again"))


def test_a_setting_that_never_worked_is_last():
    table = pd.DataFrame(
        {"setting": ["a", "b"], "val_score": [None, 0.1], "error": ["x", None], "test_iou": [None, 0.1]}
    ).assign(test_dice=None)
    assert rank(table.astype({"val_score": float, "test_dice": float})).setting.tolist() == ["b", "a"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("seeds: [1]", "has a name"),
        ("[1, 2]", "has a name"),
        ("name: a\nseed: [1]", "unknown key 'seed'; did you mean 'seeds'"),
        ("name: a\nseeds: 1", "seeds is 1, not a list"),
        ("name: a\ngrid: {epochs: 3}", "epochs is 3, not a list"),
        ("name: a\npresets: [compcat]", "compcat: unknown preset 'compcat'; did you mean 'compact'"),
        ("name: a\ngrid: {epoch: [3]}", "unknown setting 'epoch'; did you mean 'epochs'"),
        ("name: a\nvariants: [3]", "a variant is 3, not settings by name"),
        ("name: a\nvariants: [{focal_gama: 2}]", "unknown setting 'focal_gama'; did you mean 'focal_gamma'"),
        ("name: a\ngrid: {epochs: [-1]}", "epochs is -1"),
        ("name: [", "cannot be read as YAML"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_starts(file, text, message):
    file.write_text(text)
    with pytest.raises(ValueError, match="tries.yaml: .*") as refused:
        run_sweep(file, run=lambda *_: pytest.fail("started"))
    assert message in str(refused.value)


def test_the_sweeps_that_come_with_the_project(project):
    _, report = read_sweep(ROOT / "sweeps" / "report.yaml")
    presets = [run["parameters"]["preset"] for run in report]
    assert len(presets) == 5 and set(presets) == {name for name in PRESETS if name.startswith("clipseg_ft_")}
    assert {run["parameters"]["split"] for run in report} == {"image"}
    _, sample = read_sweep(ROOT / "sweeps" / "sample.yaml")
    assert len(sample) == 4
    _, losses = read_sweep(ROOT / "sweeps" / "losses.yaml")
    assert len(losses) == 12 and not any(run["evaluate"] for run in losses)
    assert {run["parameters"]["seed"] for run in losses} == {42, 43}


@pytest.mark.slow
def test_a_real_sweep_from_the_command_line(project):
    text = (ROOT / "sweeps" / "sample.yaml").read_text()
    (project / "sample.yaml").write_text(text.replace("seeds: [42, 43]", "seeds: [42]"))
    result = CliRunner().invoke(main, ["sweep", str(project / "sample.yaml")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    ranking = pd.read_csv(project / "outputs" / "sample" / "ranking.csv")
    assert len(ranking) == 2 and ranking.n_failed.sum() == 0 and (ranking.val_mean > 0.3).all()
