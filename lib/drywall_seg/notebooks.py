"""The strict notebook runner over papermill."""

import ast
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from drywall_seg.config import close_match, project_root, resolve_config, run_folder_of
from drywall_seg.data.manifest import resolve_data
from drywall_seg.runs import NotebookError, read_object, whole_file
from drywall_seg.settings import NAMES, RunConfig

PIPELINE = ("01_prepare", "02_train", "03_evaluate", "04_visualize_panels")
RUN_ALL = "00_run_all"
RESULTS = ("report.html", "panels", "masks", "metrics.json")


def notebook_file(name: str) -> Path:
    """Returns the path of a notebook by its name; `all` is `00_run_all`.

    Raises:
        NotebookError: If there is none of that name.
    """
    folder = project_root() / "notebooks"
    stem = RUN_ALL if name == "all" else Path(name).stem
    known = sorted(path.stem for path in folder.glob("[0-9]*.ipynb"))
    if not known:
        raise NotebookError(f"{folder}: no notebooks there; start in the project's folder")
    if stem not in known:
        raise NotebookError(f"no notebook {name!r} in {folder}{close_match(stem, known)}")
    return folder / f"{stem}.ipynb"


def photos_of(photos: str, folder: Path) -> Path:
    """Returns where the photos of `05_predict_photos` are.

    Args:
        photos: A file or a folder, as any path of data; or `upload`, for files that are chosen in Colab's dialog.
        folder: What was uploaded is kept here.

    Raises:
        ValueError: If nothing can be uploaded here, or nothing was.
    """
    if photos != "upload":
        return resolve_data(photos)
    try:
        from google.colab import files
    except ImportError as error:
        raise ValueError("photos is 'upload', which Colab alone can do: give a file or a folder") from error
    chosen = files.upload()
    if not chosen:
        raise ValueError("photos is 'upload', but no file was chosen")
    for name, content in chosen.items():
        with whole_file(folder / Path(name).name) as partial:
            partial.write_bytes(content)
    return folder


def say_device(config: RunConfig) -> str:
    """Says what a run will be computed on, and where there is no GPU, what will be slow and what to do about it."""
    from drywall_seg.inference.torch_backend import default_device, device_name

    if default_device() == "cuda":
        return f"on {device_name()}"
    slow = "training takes about 3 min for the drawn sample, an hour or more for the full exports"
    if config.preset.startswith("clipseg"):
        slow = "training CLIPSeg on the full exports takes hours, its decoder alone (preset clipseg_decoder) less"
    return f"on {device_name()}, no GPU: {slow}. In Colab: Runtime > Change runtime type > T4 GPU. It goes on as it is."


def declared_parameters(path: Path) -> dict[str, Any]:
    """Returns the names in a notebook's parameters cell with their defaults.

    Papermill's own inspection skips lines that it cannot match; the cell is Python literals, so it is read as such.

    Raises:
        NotebookError: If not exactly one cell is tagged `parameters`, or it holds more than assigned literals.
    """
    cells = [c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", ())]
    if len(cells) != 1:
        raise NotebookError(f"{path}: {len(cells)} cells are tagged 'parameters', not one")
    declared = {}
    for statement in ast.parse(cells[0].source).body:
        try:
            (target,) = statement.targets
            declared[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError) as error:
            line = ast.unparse(statement)
            raise NotebookError(f"{path}: parameters cell: {line!r} is not a name and a literal") from error
    return declared


def check_parameters(paths: list[Path], parameters: Mapping[str, Any]) -> None:
    """Refuses a parameter that none of the notebooks declares.

    Raises:
        NotebookError: Naming the close match.
    """
    known = sorted({name for path in paths for name in declared_parameters(path)})
    for name in parameters:
        if name not in known:
            stems = ", ".join(path.stem for path in paths)
            raise NotebookError(f"{stems}: no parameter {name!r}{close_match(name, known)}")


def run_notebook(name: str, parameters: Mapping[str, Any] | None = None, again: bool = False) -> Path:
    """Runs a notebook headless and keeps the executed copy in the run's folder, also when it fails.

    `00_run_all` of a run that it has finished with the same parameters is not run again. The others are: each of
    them leaves alone what is done.

    Args:
        name: As in `notebooks/`, with or without `.ipynb`; `all` for `00_run_all`.
        parameters: Values for its parameters cell.
        again: Run `00_run_all` even if it is done.

    Returns:
        The executed copy, `outputs/<run_name>/notebooks/<name>.ipynb`.

    Raises:
        NotebookError: If a parameter is unknown (before anything starts), a cell fails, or it is interrupted.
        ValueError: If a parameter's value cannot be right (before anything starts).
    """
    source, parameters = notebook_file(name), dict(parameters or {})
    check_parameters([source], parameters)
    settings = declared_parameters(source) | parameters
    folder = run_folder_of(resolve_config(**{n: v for n, v in settings.items() if n in NAMES}))
    copy = folder / "notebooks" / source.name
    if source.stem == RUN_ALL and not again and _is_done(copy, source, parameters) and _has_results(folder):
        return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(f".partial-{copy.name}")
    try:
        papermill.execute_notebook(
            source,
            partial,
            parameters=parameters,
            cwd=project_root(),
            kernel_name="python3",
            progress_bar=False,
            stderr_file=sys.stderr,  # the bars of a training of hours are seen while it runs
            extra_arguments=["--log-level=ERROR"],  # else each kernel warns of its local connection
        )
    except PapermillExecutionError as error:
        raise NotebookError(
            f"{source.stem} failed in cell {error.cell_index}: {error.ename}: {error.evalue}\nexecuted copy: {copy}"
        ) from error
    except DeadKernelError as error:
        reason = "its kernel died, as where memory runs out; the same command goes on"
        raise NotebookError(f"{source.stem}: {reason}\nexecuted copy: {copy}") from error
    finally:
        if partial.is_file():
            os.replace(partial, copy)
    if not _is_done(copy, source, parameters):  # papermill takes Ctrl-C for an end like any other
        raise NotebookError(f"{source.stem} was interrupted; the same command goes on\nexecuted copy: {copy}")
    return copy


def run_pipeline(parameters: Mapping[str, Any]) -> list[Path]:
    """Runs 01 to 04 in order, each with those of the parameters that it declares, and returns the executed copies.

    Raises:
        NotebookError: As `run_notebook`.
    """
    sources = [notebook_file(name) for name in PIPELINE]
    check_parameters(sources, parameters)
    copies = []
    for source in sources:
        declared = declared_parameters(source)
        print(source.stem, file=sys.stderr, flush=True)
        copies.append(run_notebook(source.stem, {n: v for n, v in parameters.items() if n in declared}))
    return copies


def describe_results(folder: Path) -> str:
    """Says how a scored run did on test, and where what it made is, a line for each."""
    metrics = read_object(folder / "metrics.json")
    lines = []
    for label, row in metrics["labels"].items():
        line = f"{label:14}mean IoU {row['mean_iou']:.3f}, mean Dice {row['mean_dice']:.3f}"
        line += f", centre-line F1 {row['mean_joint_line_f1']:.3f}" if label == "joint_line" else ""
        lines.append(f"{line}, {row['n_images']} test images")
    return "\n".join([*lines, *(f"{name:14}{folder / name}" for name in RESULTS)])


def _is_done(copy: Path, source: Path, parameters: Mapping[str, Any]) -> bool:
    """Says whether a copy is of this notebook, with these parameters, and every one of its cells was run."""
    wanted = nbformat.read(source, as_version=4)
    try:
        executed = nbformat.read(copy, as_version=4)
        record = executed.metadata.get("papermill", {})
        cells = [c for c in executed.cells if "injected-parameters" not in c.metadata.get("tags", ())]
        return (
            record.get("exception") is None
            and record.get("parameters") == parameters
            and [c.source for c in cells] == [c.source for c in wanted.cells]
            and all(c.execution_count is not None for c in cells if c.cell_type == "code" and c.source.strip())
        )
    except Exception:  # there is none, or it is nonsense, over which nbformat raises anything: it is run again
        return False


def _has_results(folder: Path) -> bool:
    return (folder / "metrics.json").is_file() and all(any((folder / n).glob("*.png")) for n in ("masks", "panels"))
