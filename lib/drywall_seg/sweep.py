"""Sweeps: a list of presets, a grid and seeds, each trained and evaluated as a run of its own, ranked by val."""

import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from drywall_seg.config import close_match, differing_settings, resolve_config, resolve_path, run_folder_of
from drywall_seg.inference.predict import THRESHOLDS_FILE
from drywall_seg.notebooks import declared_parameters, notebook_file, run_notebook
from drywall_seg.runs import CHECKPOINT, progress, read_json, write_csv
from drywall_seg.visualization.charts import plot_ranking
from drywall_seg.visualization.panels import save_figure

KEYS = ("name", "parameters", "presets", "variants", "grid", "seeds", "evaluate")
TRAIN, EVALUATE = "02_train", "03_evaluate"
COLUMNS = ["run", "setting", "seed", "val_score", "val_iou", "val_dice", "test_iou", "test_dice", "seconds", "error"]


def read_sweep(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Reads a sweep file and returns its name and every run's parameters, run_name and setting among them.

    A sweep is YAML: `name`; `presets`, a list; `variants`, a list of settings that go together (`{}` for none); `grid`,
    values by setting, of which every combination is run; `seeds`; `parameters` of all runs; and `evaluate: false` where
    val alone is to be looked at. All but the name may be left out. Any setting of a run can be varied.

    Raises:
        ValueError: If a key, parameter or value cannot be right, or nothing varies; the message names the file.
    """
    try:
        sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML ({error})") from error
    if not isinstance(sweep, dict) or not isinstance(sweep.get("name"), str):
        raise ValueError(f"{path}: a sweep has a name and lists of presets, grid values or seeds")
    for key in sweep:
        if key not in KEYS:
            raise ValueError(f"{path}: unknown key {key!r}{close_match(str(key), list(KEYS))}")
    axes = {"preset": sweep.get("presets") or [None], **(sweep.get("grid") or {})}
    variants, seeds = sweep.get("variants") or [{}], sweep.get("seeds") or [42]
    for name, values in {**axes, "variants": variants, "seeds": seeds}.items():
        if not isinstance(values, list):
            raise ValueError(f"{path}: {name} is {values!r}, not a list")
    for variant in variants:
        if not isinstance(variant, dict):
            raise ValueError(f"{path}: a variant is {variant!r}, not settings by name")
    runs = []
    for values, variant, seed in itertools.product(itertools.product(*axes.values()), variants, seeds):
        varied = {n: v for n, v in zip(axes, values, strict=True) if v is not None} | variant
        setting = " ".join(str(v) if n == "preset" else f"{n}={v}" for n, v in varied.items()) or "as given"
        run_name = re.sub(r"[^\w.-]+", "-", f"{sweep['name']}-{setting}-s{seed}")
        run = {**(sweep.get("parameters") or {}), **varied, "seed": seed, "run_name": run_name}
        try:
            resolve_config(**run)
        except ValueError as error:
            raise ValueError(f"{path}: {setting}: {error}") from error
        runs.append({"setting": setting, "parameters": run, "evaluate": sweep.get("evaluate", True)})
    return sweep["name"], runs


def run_sweep(path: Path, run: Callable[[str, Mapping[str, Any]], Any] = run_notebook) -> tuple[pd.DataFrame, Path]:
    """Trains and evaluates every run of a sweep, and writes `sweep.csv`, `ranking.csv` and `ranking.png`.

    What is finished is not run again, and a run that fails is noted while the others go on; the tables are written
    after each run, into `outputs/<name>/`. `run` runs a notebook with parameters.

    Returns:
        The ranking, and that folder.
    """
    name, runs = read_sweep(path)
    folder = resolve_path(runs[0]["parameters"].get("outputs_root", "outputs")) / name
    results: list[dict[str, Any]] = []
    for entry in progress(runs, name, "run"):
        parameters, error = entry["parameters"], None
        try:
            if not is_finished(parameters, entry["evaluate"]):
                run(TRAIN, for_notebook(parameters))
                if entry["evaluate"]:
                    run(EVALUATE, {key: parameters[key] for key in ("run_name", "outputs_root") if key in parameters})
        except Exception as failure:  # whatever it is: it is written down, and the other runs are wanted
            error = f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"
        results.append({"run": parameters["run_name"], "setting": entry["setting"], "seed": parameters["seed"]})
        results[-1] |= {"error": error} if error else _scores(parameters, entry["evaluate"])
        table = pd.DataFrame(results, columns=COLUMNS)
        write_csv(folder / "sweep.csv", table)
        write_csv(folder / "ranking.csv", rank(table))
        save_figure(plot_ranking(table), folder / "ranking.png")
    return rank(table), folder


def for_notebook(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the settings for which the notebook's form has no field into its preset."""
    declared = declared_parameters(notebook_file(TRAIN))
    others = {name: value for name, value in parameters.items() if name not in declared}
    form = {name: value for name, value in parameters.items() if name in declared}
    return form | ({"preset": {"preset": form.get("preset"), **others}} if others else {})


def is_finished(parameters: Mapping[str, Any], evaluate: bool = True) -> bool:
    """Says whether a run of exactly these settings has been trained and, if it is to be, evaluated."""
    config = resolve_config(**parameters)
    folder = run_folder_of(config)
    results = [folder / "metrics.json"] if evaluate else []
    files = folder / "config.json", folder / CHECKPOINT / THRESHOLDS_FILE, folder / "history.csv", *results
    if not all(file.is_file() for file in files) or differing_settings(read_json(files[0]), config):
        return False
    return "presence_cut" in read_json(files[1])  # a training's last word


def rank(table: pd.DataFrame) -> pd.DataFrame:
    """Ranks settings by their mean score on val over seeds, (mean IoU + mean Dice) / 2 of cracks and taping areas.

    Returns:
        One row a setting, best first: setting, n_seeds, n_failed, val_mean, val_spread (standard deviation over
        seeds, none for one), and test_iou and test_dice, means that rank nothing.
    """
    groups = table.groupby("setting", sort=False)
    ranking = groups.agg(
        n_seeds=("val_score", "count"),
        n_failed=("error", "count"),
        val_mean=("val_score", "mean"),
        val_spread=("val_score", "std"),
        test_iou=("test_iou", "mean"),
        test_dice=("test_dice", "mean"),
    )
    return ranking.reset_index().sort_values("val_mean", ascending=False, kind="stable", ignore_index=True)


def _scores(parameters: Mapping[str, Any], evaluate: bool) -> dict[str, Any]:
    folder = run_folder_of(resolve_config(**parameters))
    if evaluate:
        metrics = read_json(folder / "metrics.json")
        val, test = metrics["val"]["overall"] or {}, metrics["overall"] or {}
        seconds = metrics["footprint"]["training_seconds"]
    else:
        history = pd.read_csv(folder / "history.csv")
        best = history[history.best.astype(bool)].tail(1).to_dict("records")
        val = {name: row.get(f"val_overall_{name}") for row in best for name in ("mean_iou", "mean_dice")}
        test, seconds = {}, history.get("seconds", pd.Series(dtype=float)).sum()
    scores = {"val_score": (val["mean_iou"] + val["mean_dice"]) / 2 if val else None, "seconds": seconds}
    scores |= {"val_iou": val.get("mean_iou"), "val_dice": val.get("mean_dice")}
    return scores | {"test_iou": test.get("mean_iou"), "test_dice": test.get("mean_dice")}
