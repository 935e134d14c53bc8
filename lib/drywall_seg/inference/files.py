"""Photos from disk to masks on disk: reading, predicting and writing overlap, and a stopped run goes on."""

import errno
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from drywall_seg.images import ImageError, read_image
from drywall_seg.inference.annotations import write_coco
from drywall_seg.inference.journal import Journal, Record, source_state
from drywall_seg.inference.monitor import append_entries, describe_photo, log_entry, photo_warnings
from drywall_seg.inference.photos import Job, find_photos, name_jobs
from drywall_seg.inference.predict import Prediction, Predictor
from drywall_seg.prompts import slugs
from drywall_seg.runs import hash_file, is_address, is_path, one_ahead, progress, single_writer, whole_file, write_csv

TABLE, COCO = "predictions.csv", "predictions.coco.json"
WAITING = 2
"""Photos whose files are still being written while the next is predicted."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of each photo, and what is written beside its masks."""

    prompts: tuple[str, ...]
    threshold: float | None = None
    """For all prompts; None for the stored ones."""
    probs: bool = False
    """Probabilities as 16-bit PNG: round(65535 p)."""
    overlay: Callable[[np.ndarray, np.ndarray], Image.Image] | None = None
    """Draws a mask over its photo, for a JPEG."""
    log: str = ""
    """A file of JSON lines for `monitor`, added to."""

    def __post_init__(self) -> None:
        slugs(list(self.prompts))


Engine = Callable[[Predictor, list[Job], Wanted, str], Iterable[list[Record]]]
"""Predicts jobs into a folder, and yields the records of each photo once its files are there."""


def predict_files(
    predictor: Predictor,
    paths: Iterable[Any],
    wanted: Wanted,
    out: Any,
    coco: str = "",
    engine: Engine | None = None,
) -> tuple[pd.DataFrame, dict[str, str], dict[str, str]]:
    """Writes a mask for every photo and prompt, and `predictions.csv` of all that is in `out`.

    A photo that is named itself goes flat into `out`, those of a folder under their path in it. A photo that cannot
    be read is named in the table, and the others go on. What an earlier run wrote with the same model and settings
    from the same photo is looked at and kept; so nothing is lost where a run is stopped.

    Args:
        predictor: The model.
        paths: Photos and folders of photos, here or at addresses for fsspec.
        wanted: What to write.
        out: Folder for the masks, or an address. Where it lies in a folder of photos, nothing in it is taken for a
            photo; where it is that folder, nothing that is written for these prompts.
        coco: `rle` or `polygons`: write `predictions.coco.json` too.
        engine: None for this machine alone.

    Returns:
        The rows of these photos (`journal.COLUMNS`; `seconds` is of a photo with all its prompts); what was wrong, by
        photo; and the stem given to each photo that could not have its own.

    Raises:
        ValueError: If two prompts collide, a path is no file or folder, no photo was found, or another process is
            writing there.
        OSError: If the disk is full.
    """
    out = str(out).rstrip("/") or "/"
    if not is_path(out):
        raise ValueError(f"out {out!r} is not a path")
    found = find_photos(map(str, paths), out, wanted.prompts)
    with nullcontext() if is_address(out) else single_writer(Path(out)):
        if not is_address(out):
            for partial in Path(out).rglob(".partial-*"):  # of a killed run
                partial.unlink()
        journal, settings = Journal(out), settings_hash(predictor, wanted)
        jobs = name_jobs(found, journal.stems())
        left = [
            job
            for job in progress(jobs, "looking at what is there", "photo")
            if not all(journal.is_done(job.photo, prompt, settings) for prompt in wanted.prompts)
        ]
        done = (engine or run_here)(predictor, left, wanted, out)
        for records in progress(done, "predicting", "photo", len(left)):
            append_entries(wanted.log, [record.pop("entry") for record in records if "entry" in record])
            journal.add([record | {"settings": settings} for record in records])
        journal.flush()
        write_csv(f"{out}/{TABLE}", journal.table())
        table = journal.table([(job.photo, prompt) for job in jobs for prompt in (*wanted.prompts, "")])
        broken = table["mask"] == ""
        if coco:
            write_coco(f"{out}/{COCO}", table[~broken], coco == "polygons")
    errors = dict(zip(table.photo[broken], table.warnings[broken], strict=True))
    renamed = {job.photo: job.stem for job in jobs if job.stem != Path(job.photo).stem and job.photo not in errors}
    return table[~broken].reset_index(drop=True), errors, renamed


def settings_hash(predictor: Predictor, wanted: Wanted) -> str:
    """Stands for all that a mask depends on besides its photo and its prompt."""
    settings = {
        "model": predictor.backend.model_hash,
        "image_size": predictor.backend.image_size,
        "thresholds": predictor.thresholds if wanted.threshold is None else wanted.threshold,
        "presence_cut": predictor.presence_cut,
        "postprocessing": {label: asdict(steps) for label, steps in predictor.postprocessing.items()},
        "tile": predictor.tile,
        "written": [wanted.probs, wanted.overlay is not None],
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def run_here(predictor: Predictor, jobs: list[Job], wanted: Wanted, out: str) -> Iterator[list[Record]]:
    """Predicts on this machine: while one photo is predicted, the next is read and those before are written."""
    with ThreadPoolExecutor(WAITING) as writers:
        writing: deque = deque()
        for job, photo in one_ahead(read_job, jobs):
            if isinstance(photo, Exception):
                yield broken_record(job, photo)
                continue
            writing.append(writers.submit(save_photo, *predict_photo(predictor, job, photo, wanted), wanted, out))
            del photo
            while len(writing) > WAITING:
                yield writing.popleft().result()
        for photo in writing:
            yield photo.result()


def read_job(job: Job) -> tuple[np.ndarray, list[int]] | Exception:
    """Reads a photo and its state; what is wrong with it is returned, not raised."""
    if not is_path(job.photo):
        return ImageError(f"{job.photo}: its name is not UTF-8, so no table can hold it; rename it")
    try:
        state = source_state(job.photo)
        return read_image(job.photo), state
    except (ImageError, OSError) as error:
        return error


def predict_photo(
    predictor: Predictor, job: Job, photo: tuple[np.ndarray, list[int]], wanted: Wanted
) -> tuple[Job, np.ndarray, list[Prediction], list[Record]]:
    """Predicts one photo; its records lack what is known once the files are there."""
    pixels, state = photo
    started = time.perf_counter()
    predictions = predictor.predict(pixels, list(wanted.prompts), wanted.threshold, wanted.probs)
    seconds, described, records = time.perf_counter() - started, describe_photo(pixels), []
    for prediction in predictions:
        label = predictor.label_for(prediction.prompt)
        record = {
            "photo": job.photo,
            "prompt": prediction.prompt,
            "presence": round(prediction.presence, 4),
            "area_share": float(np.count_nonzero(prediction.mask) / prediction.mask.size),
            "doubt": round(prediction.doubt, 4),
            "threshold": prediction.threshold,
            "seconds": round(seconds, 3),
            "warnings": "; ".join(photo_warnings(described, predictor.reference.get(label, {}))),
            "source": state,
            "named": [job.folder, job.stem],
        }
        if wanted.log:
            record["entry"] = log_entry(predictor, pixels, prediction, seconds, described)
        records.append(record)
    return job, pixels, predictions, records


def save_photo(
    job: Job, photo: np.ndarray, predictions: list[Prediction], records: list[Record], wanted: Wanted, out: str
) -> list[Record]:
    """Writes a photo's files, and completes its records.

    Raises:
        OSError: If the disk is full; what else is wrong with a file is the photo's own trouble.
    """
    try:
        for prediction, record in zip(predictions, records, strict=True):
            record["mask"] = job.file(prediction.prompt)
            pictures = {record["mask"]: Image.fromarray(prediction.mask)}
            if wanted.probs:
                values = np.rint(prediction.probs * np.float32(65535)).astype(np.uint16)
                pictures[job.file(prediction.prompt, "__probs.png")] = Image.fromarray(values)
            if wanted.overlay:
                pictures[job.file(prediction.prompt, "__overlay.jpg")] = wanted.overlay(photo, prediction.mask)
            record["files"] = {name: _write(f"{out}/{name}", picture) for name, picture in pictures.items()}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return broken_record(job, error)
    return records


def _write(path: str, picture: Image.Image) -> list:
    with whole_file(path) as partial:
        picture.save(partial)
        return [partial.stat().st_size, hash_file(partial)]


def broken_record(job: Job, error: Exception) -> list[Record]:
    """Returns the one record of a photo that could not be read or written."""
    message = str(error) if job.photo in str(error) else f"{job.photo}: {error}"
    return [{"photo": job.photo, "prompt": "", "mask": "", "warnings": message}]
