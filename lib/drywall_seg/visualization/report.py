"""The report of a run: one HTML file that needs nothing else, from what the run has stored."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from drywall_seg.config import resolve_config, run_folder_of
from drywall_seg.data.manifest import Manifest
from drywall_seg.evaluation.breakdowns import FEW_PHOTOGRAPHS
from drywall_seg.evaluation.compare import compare_runs
from drywall_seg.evaluation.evaluate import read_results
from drywall_seg.evaluation.gains import describe_gains
from drywall_seg.evaluation.intervals import interval_text
from drywall_seg.evaluation.reference import REFERENCE_PROTOCOL, reference_table
from drywall_seg.evaluation.robustness import summarise_questions
from drywall_seg.prompts import TRUTH, canonical_prompt
from drywall_seg.runs import read_json, whole_file
from drywall_seg.settings import RunConfig
from drywall_seg.visualization.charts import plot_calibration, plot_precision_recall, plot_presence, plot_sweep
from drywall_seg.visualization.html import picture, render, section, table_of
from drywall_seg.visualization.panels import plot_grid, run_examples

EVALUATE_PARAMETERS = ("preset", "data_root", "outputs_root", "model", "split", "seed", "threshold")
"""What of a run's settings `03_evaluate` declares as a parameter."""


def write_report(config: RunConfig, manifest: Manifest, others: Sequence[Path] = ()) -> Path:
    """Writes `report.html` into an evaluated run's folder and returns its path.

    The manifest is of the data that it was evaluated on, for the pictures; others are folders of runs to compare with.

    Raises:
        FileNotFoundError: If one of the runs was not evaluated.
    """
    folder = run_folder_of(config)
    metrics, tables = read_results(folder)
    sections = [
        _runs(folder, metrics, tables, others),
        *_curves(metrics, tables),
        *_postprocessing(tables),
        *_breakdowns(tables),
        *_questions(metrics, tables),
        *_pictures(config, manifest, tables),
        *_making(config, folder, metrics, tables),
    ]
    path = folder / "report.html"
    text = render("report", name=folder.name, metrics=metrics, headline=_headline(metrics), sections=sections)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def _headline(metrics: dict[str, Any]) -> list[dict[str, str]]:
    boxes = []
    for label, values in metrics["labels"].items():
        name = "mean_joint_line_f1" if label == "joint_line" else "mean_iou"
        boxes.append(
            {
                "label": canonical_prompt(label),
                "value": f"{values[name]:.3f}",
                "score": "mean centre-line F1" if label == "joint_line" else "mean IoU over images",
                "interval": interval_text(values["interval_95"][name]),
                "n": f"{values['n_images']} images of {values['n_photographs']} photographs",
                "truth": TRUTH[label],
            }
        )
    return boxes


def _runs(folder: Path, metrics: dict[str, Any], tables: dict[str, pd.DataFrame], others: Sequence[Path]) -> dict:
    """The table of runs, the paired differences, and the reference report's own table."""
    read = {folder.name: (metrics, tables)} | {other.name: read_results(other) for other in others}
    areas, thin = [], []
    for name, (about, _) in read.items():
        for label, values in [*about["labels"].items(), ("overall", about["overall"])]:
            if values:
                row = {"run": name, "label": label}
                areas.append({**row, "split": about["split"], **_area_scores(values)})
                thin += [{**row, **_thin_scores(values)}] if label != "overall" else []
    shown = [table_of(pd.DataFrame(areas)), table_of(pd.DataFrame(thin))]
    text = "Means over images."
    for other in others:
        pair = tables["per_image"], read[other.name][1]["per_image"]
        lines = compare_runs(*pair, "joint_line_f1").query("label == 'joint_line'").assign(score="centre-line F1")
        differences = pd.concat([compare_runs(*pair).assign(score="IoU"), lines], ignore_index=True)
        if len(differences):
            shown.append(table_of(differences.assign(ours=folder.name, theirs=other.name)))
        else:
            text += f" {folder.name} and {other.name} were scored on no image in common."
    text += f" The last table is the reference report's own, not measured here: {REFERENCE_PROTOCOL}."
    return section("Runs", text, [*shown, table_of(reference_table())])


def _area_scores(values: dict[str, Any]) -> dict[str, Any]:
    return {
        "images of a photograph trained on": values.get("share_trained_on"),
        "images": values["n_images"],
        "photographs": values["n_photographs"],
        "mean IoU": values["mean_iou"],
        "95 % interval": interval_text(values["interval_95"]["mean_iou"]),
        "mean Dice": values["mean_dice"],
        "pooled IoU": values["pooled_iou"],
    }


def _thin_scores(values: dict[str, Any]) -> dict[str, Any]:
    names = {
        "cldice": "clDice",
        "mean_tolerance_f1_2px": "F1 within 2 px",
        "mean_tolerance_f1_4px": "F1 within 4 px",
        "mean_boundary_f1": "boundary F1",
        "mean_joint_line_f1": "centre-line F1 against joint_line",
        "n_joint_line_truth": "images with joint_line truth",
        "wrong_prompt_area": "area for another label's sentence",
        "expected_calibration_error": "calibration error",
    }
    return {shown: values.get(name) for name, shown in names.items()}


def _curves(metrics: dict[str, Any], tables: dict[str, pd.DataFrame]) -> list[dict]:
    thresholds = {label: v["threshold"] for label, v in metrics["labels"].items() if v["threshold"] is not None}
    sweep = plot_sweep(tables["sweep"], thresholds)
    pixels = plot_precision_recall(tables["precision_recall"], thresholds), plot_calibration(tables["calibration"])
    alts = "Precision against recall for each label", "Share of target pixels against mean probability for each label"
    return [
        section(
            "Thresholds",
            f"Mean Dice of the raw masks. Dots mark the thresholds in use, which were chosen: "
            f"{metrics['thresholds_chosen']}. On test the sweep chooses nothing.",
            charts=[picture(sweep, "Mean Dice by threshold, on val and on test")],
        ),
        section(
            "Precision, recall, calibration",
            "Of the raw probabilities' pixels on test, pooled over images.",
            charts=[picture(figure, alt) for figure, alt in zip(pixels, alts, strict=True)],
        ),
    ]


def _postprocessing(tables: dict[str, pd.DataFrame]) -> list[dict]:
    table = tables.get("postprocessing", pd.DataFrame())  # a run of before has none
    return [section("Post-processing", describe_gains(table), [table_of(table)])] if len(table) else []


def _breakdowns(tables: dict[str, pd.DataFrame]) -> list[dict]:
    table = tables["breakdowns"]
    text = f"Delivered masks on test. Grey: fewer than {FEW_PHOTOGRAPHS} photographs, which say little."
    shown = table_of(table.drop(columns="few_photographs"), table.few_photographs.astype(bool))
    return [section("Breakdowns", text, [shown])]


def _questions(metrics: dict[str, Any], tables: dict[str, pd.DataFrame]) -> list[dict]:
    roc, area = tables["presence_roc"], metrics["presence_roc_auc"]
    text = (
        "A seeded sample of test photos, asked in words that training never saw, for labels and things that are not "
        "there. Area is the share of the photo that is masked."
    )
    detector = f" Presence as a detector: area under the curve {area:.3f}." if area is not None else ""
    charts = [picture(plot_presence(roc, metrics["presence_cut"]), "Presence as a detector")] if len(roc) else []
    return [
        section("Other sentences", text + detector, [table_of(summarise_questions(tables["questions"]))], charts),
        section("Other sizes", "Val photos, resized; side 0: as they are.", [table_of(tables["sizes"])]),
    ]


def _pictures(config: RunConfig, manifest: Manifest, tables: dict[str, pd.DataFrame]) -> list[dict]:
    examples, panels = run_examples(config, manifest), []
    for label in dict.fromkeys(label for label, _, _ in examples):
        figure = plot_grid([cells for owner, _, cells in examples if owner == label], 2.8)
        panels.append(picture(figure, f"Examples of {label}", "jpeg"))
    about = "The best, the median and the worst image of each label by IoU."
    lists = [section(name, tables=[table_of(rows)]) for name, rows in failures(tables["per_image"]).items()]
    return [section("Pictures", about, charts=panels), *lists]


def failures(per_image: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Returns the ten rows with the lowest IoU, the largest false alarms and the largest misses, by what they are."""
    pixels = per_image.width * per_image.height
    table = per_image.assign(false_alarm=per_image.fp / pixels, missed=per_image.fn / pixels)
    columns = ["image_id", "label", "iou", "false_alarm", "missed", "presence"]
    return {
        "Lowest IoU": table.nsmallest(10, "iou")[columns],
        "Largest false alarms (share of the photo)": table.nlargest(10, "false_alarm")[columns],
        "Largest misses (share of the photo)": table.nlargest(10, "missed")[columns],
    }


def _making(config: RunConfig, folder: Path, metrics: dict[str, Any], tables: dict[str, pd.DataFrame]) -> list[dict]:
    text = "Seconds a photo of one sentence, after a warm-up; the model apart from reading, resizing and writing."
    passes = pd.DataFrame(metrics["seconds"].items(), columns=["evaluation", "seconds"])
    footprint = pd.DataFrame(metrics["footprint"].items(), columns=["footprint", "value"])
    about = read_json(folder / "environment.json")
    versions = about.pop("packages")
    environment = pd.DataFrame([*about.items(), *versions.items()], columns=["environment", "value"])
    settings = pd.DataFrame(config.to_dict().items(), columns=["setting", "value"])
    used = {values["threshold"] for values in metrics["labels"].values()}
    given = used.pop() if metrics["thresholds_chosen"] == "given" and len(used) == 1 else None
    return [
        section("Cost", text, [table_of(tables["runtime"]), table_of(footprint), table_of(passes)]),
        section("Settings and environment", tables=[table_of(settings), table_of(environment)]),
        section("Made by", code="\n".join(commands(config, folder, given))),
    ]


def commands(config: RunConfig, folder: Path, threshold: float | None = None) -> list[str]:
    """Returns the command lines that make a run's results.

    Args:
        config: The run's settings; of one that was not trained, those that it was evaluated with.
        folder: The run's.
        threshold: The one that a trained run was evaluated with, where it was given.
    """
    given = _given(config)
    if not (folder / "history.csv").is_file():
        shown = {name: value for name, value in given.items() if name in EVALUATE_PARAMETERS}
        return [_command("run 03_evaluate", shown, folder.name)]
    stored = read_json(folder / "config.json")
    again = {name: value for name, value in given.items() if name == "outputs_root"}
    again |= {"threshold": threshold} if threshold not in (None, stored["threshold"]) else {}
    return [
        _command("train", _given(resolve_config(**stored)), folder.name),
        _command("run 03_evaluate", again, folder.name),
    ]


def _given(config: RunConfig) -> dict[str, Any]:
    usual = {**resolve_config(preset=config.preset).to_dict(), "run_name": config.run_name}
    values = {name: value for name, value in config.to_dict().items() if value not in (None, usual[name])}
    return {"preset": config.preset} | values


def _command(name: str, parameters: dict[str, Any], run_name: str) -> str:
    options = [f"-p {key} {shlex.quote(str(value))}" for key, value in parameters.items()]
    return " ".join(["drywall-seg", name, *options, "--run-name", run_name])
