"""Results in README and model card: `python -m drywall_seg.visualization.results RUN_FOLDER [OTHER_RUN_FOLDER...]`.

The run is one of `03_evaluate` with model `compact`. The others are the same recipe on other splits; without them
those of last time stay. What is written is kept beside the weights, and a test holds both documents to it.
"""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drywall_seg.config import project_root
from drywall_seg.evaluation.intervals import interval_text
from drywall_seg.evaluation.reference import PUBLIC_CRACKS, REFERENCE_LEAKED, reference_table
from drywall_seg.evaluation.robustness import summarise_questions
from drywall_seg.models import COMPACT
from drywall_seg.prompts import TRUTH
from drywall_seg.runs import read_json, whole_file, write_json

STORED = "results.json"
ASKED = {
    "canonical": "the canonical sentence",
    "paraphrase": "other words, unseen in training",
    "other_label": "a label that is not there",
    "absent": "a thing on no wall, unseen in training",
}


def collect_results(run_folder: Path) -> dict[str, Any]:
    """Returns what a run has stored: metrics, summed-up questions and sizes, post-processing's gains, the device.

    Raises:
        FileNotFoundError: If the run has not been evaluated.
    """
    questions = summarise_questions(pd.read_csv(run_folder / "tables" / "questions.csv").fillna({"label": ""}))
    gains = run_folder / "tables" / "postprocessing.csv"  # a run of before has none
    return {
        "metrics": read_json(run_folder / "metrics.json"),
        "questions": _records(questions),
        "sizes": _records(pd.read_csv(run_folder / "tables" / "sizes.csv")),
        "postprocessing": _records(pd.read_csv(gains)) if gains.is_file() else [],
        "device": read_json(run_folder / "environment.json")["device"],
    }


def collect_other(run_folder: Path) -> dict[str, Any]:
    """Returns what is shown of a run on another split.

    Raises:
        FileNotFoundError: If the run has not been evaluated.
    """
    metrics, split = read_json(run_folder / "metrics.json"), read_json(run_folder / "config.json")["split"]
    return {"run": run_folder.name, "split": split, **{part: metrics[part] for part in ("overall", "labels", "val")}}


def protocol_table(results: dict[str, Any]) -> str:
    """Returns the reference report's runs and ours, by image and by photograph, as a Markdown table."""
    ours = [other for other in results["others"] if other["split"] == "image"]
    ours.append({**results["metrics"], "run": "compact, as shipped", "split": "photo"})
    rows = []
    for row in reference_table().replace({np.nan: None}).to_dict("records"):
        pairs = [_pair(row[f"{part}_iou"], row[f"{part}_dice"], 4) for part in ("overall", "crack", "taping")]
        leaked = f"about {REFERENCE_LEAKED:.0%} of photographs" if row["epochs"] else "nothing trained"
        rows.append([f"`{row['run']}`, as reported", "image", row["n_images"], leaked, *pairs])
    for run in ours:
        labels, overall = [run["labels"][label] for label in ("crack", "taping_area")], run["overall"]
        leaked = " / ".join(f"{values['share_trained_on']:.0%}" for values in labels)
        pairs = [_pair(v["mean_iou"], v["mean_dice"]) for v in (overall, *labels)]
        rows.append([f"**{run['run']}**", run["split"], overall["n_images"], leaked, *pairs])
    head = ["run", "split by", "test images", "leaked (crack / taping)", "overall IoU / Dice", "crack", "taping area"]
    return _markdown(head, rows)


def public_table(results: dict[str, Any]) -> str:
    """Returns the attempts on the publisher's valid part of the cracks, ours among them, as a Markdown table."""
    rows = [[row.attempt, 201, _pair(row.crack_iou, row.crack_dice), ""] for row in PUBLIC_CRACKS.itertuples()]
    for run in results["others"]:
        if run["split"] == "publisher":
            values = run["val"]["labels"]["crack"]
            interval = interval_text(values["interval_95"]["mean_iou"])
            scores = _pair(values["mean_iou"], values["mean_dice"])
            rows.append([f"**{run['run']}**, sentence", values["n_images"], scores, interval])
    return _markdown(["attempt", "images", "mean IoU / Dice", "95 % interval of IoU"], rows)


def _pair(iou: float | None, dice: float | None, places: int = 3) -> str:
    return " / ".join(f"{value:.{places}f}" for value in (iou, dice) if value is not None)


def score_table(results: dict[str, Any]) -> str:
    """Returns the scores as a Markdown table, one row a label."""
    rows = []
    for label, values in results["metrics"]["labels"].items():
        scores = [_with_interval(values, f"mean_{name}") for name in ("iou", "dice", "joint_line_f1")]
        scores[2] += f", n {values['n_joint_line_truth']}" if scores[2] else ""
        rows.append([f"`{label}`", TRUTH[label], values["n_images"], values["n_photographs"], *scores])
    head = ["label", "truth", "images", "photographs", "mean IoU", "mean Dice", "centre-line F1 against `joint_line`"]
    return _markdown(head, rows)


def question_table(results: dict[str, Any]) -> str:
    """Returns what other sentences find, as a Markdown table."""
    rows = []
    for row in results["questions"]:
        score = "" if row["mean_iou"] is None else f"{row['mean_iou']:.3f}"
        name = f"`{row['label']}`" if row["label"] else ""
        rows.append([ASKED[row["asked"]], name, row["n_asked"], row["n_images"], f"{row['mean_area']:.2%}", score])
    return _markdown(["asked for", "label", "questions", "images", "mean area", "mean IoU"], rows)


def size_table(results: dict[str, Any]) -> str:
    """Returns the scores on resized photos as a Markdown table; F1 of the centre line for joint lines, else IoU."""
    cells: dict[str, dict[int, str]] = {}
    for row in results["sizes"]:
        value = row["mean_iou"] if row["mean_joint_line_f1"] is None else row["mean_joint_line_f1"]
        cells.setdefault(row["label"], {})[row["side"]] = f"{value:.3f}"
    sides = sorted({row["side"] for row in results["sizes"]})
    names = {"joint_line": "centre-line F1"}
    rows = [[f"`{label}`", names.get(label, "mean IoU"), *(by[s] for s in sides)] for label, by in cells.items()]
    return _markdown(["label", "score", *(f"{side} px" if side else "own size" for side in sides)], rows)


def postprocessing_table(results: dict[str, Any]) -> str:
    """Returns what post-processing gains on test, and what boxes would, as a Markdown table."""
    rows = []
    for row in results["postprocessing"]:
        if row["split"] == "test":
            interval = "" if row["low"] is None else f" ({row['low']:+.3f} to {row['high']:+.3f})"
            scores = [_pair(row["mean_iou_raw"], row["mean_dice_raw"]), _pair(row["mean_iou"], row["mean_dice"])]
            shown = [row["what"], row["settings"], row["n_images"], *scores, f"{row['gain']:+.3f}{interval}"]
            rows.append([f"`{row['label']}`", *shown])
    head = ["label", "what", "settings", "images", "raw mean IoU / Dice", "after", "gain in mean Dice"]
    return _markdown(head, rows)


def render(results: dict[str, Any], text: str) -> str:
    """Returns a document with the tables between its marks made anew; the rest stays."""
    for name, table in TABLES.items():
        marked = f"(<!-- {name} -->).*?(<!-- end of {name} -->)"
        text = re.sub(marked, lambda m, t=table: f"{m[1]}\n{t(results)}\n{m[2]}", text, flags=re.DOTALL)
    return text


TABLES = {
    "scores": score_table,
    "questions": question_table,
    "sizes": size_table,
    "post-processing": postprocessing_table,
    "protocols": protocol_table,
    "public attempts": public_table,
}


def documents() -> list[Path]:
    """Returns the files that show the results."""
    return [project_root() / "README.md", COMPACT.parent / "MODEL_CARD.md"]


def _with_interval(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return ""
    interval = interval_text(values["interval_95"][name])
    return f"{values[name]:.3f}" + (f" ({interval})" if interval else "")


def _markdown(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.round(6).astype(object).where(table.notna(), None).to_dict("records")


def main(run_folder: Path, *others: Path) -> None:
    """Stores a run's results beside the weights and writes them into the documents."""
    results = collect_results(run_folder)
    stored = COMPACT / STORED
    kept = read_json(stored).get("others", []) if stored.is_file() else []
    results["others"] = [collect_other(other) for other in others] or kept
    write_json(stored, results)
    for path in documents():
        with whole_file(path) as partial:
            partial.write_text(render(results, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
