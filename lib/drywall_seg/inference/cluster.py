"""Past one machine: the same photos to the same masks, spread over a cluster by Ray Data (extra `scale`)."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from drywall_seg.inference.files import Engine, Record, Wanted, broken_record, predict_photo, read_job, save_photo
from drywall_seg.inference.photos import Job
from drywall_seg.inference.predict import Predictor

PHOTOS_AT_ONCE = 4
"""Handed to a worker in one piece: what is done again where it dies."""


class PhotoWorker:
    """Holds a loaded model; Ray keeps one for each device, and starts another where one dies."""

    def __init__(self, load: Callable[[], Predictor], wanted: Wanted, out: str) -> None:
        self.predictor, self.wanted, self.out = load(), wanted, out

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Predicts and writes a batch of jobs; returns their records as JSON, a column that holds any."""
        jobs = [Job(**{name: str(batch[name][row]) for name in batch}) for row in range(len(batch["photo"]))]
        return {"records": [json.dumps(self._one(job)) for job in jobs]}

    def _one(self, job: Job) -> list[Record]:
        photo = read_job(job)
        if isinstance(photo, Exception):
            return broken_record(job, photo)
        return save_photo(*predict_photo(self.predictor, job, photo, self.wanted), self.wanted, self.out)


def ray_engine(load: Callable[[], Predictor], workers: int | None = None) -> Engine:
    """Returns an engine for `files.predict_files` that runs on the Ray cluster one is in, or on one of its own here.

    Photos and `out` must be what every worker can reach: a shared folder, or addresses. Records come back as photos
    are done and are kept here, so a run that is stopped goes on like any other. Each worker loads the model; without a
    number of them there is one for each GPU, or for every two cores where there is none.

    Raises:
        ValueError: If Ray is not installed.
    """

    def run(predictor: Predictor, jobs: list[Job], wanted: Wanted, out: str) -> Iterator[list[Record]]:
        try:
            import ray.data
        except ImportError as error:
            raise ValueError("the ray engine needs Ray: pip install 'drywall-seg[scale]'") from error
        if not jobs:
            return
        ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
        ray.data.DataContext.get_current().enable_progress_bars = False  # there is one already
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = workers or gpus or max(1, int(ray.cluster_resources()["CPU"]) // 2)
        pieces = max(count, -(-len(jobs) // PHOTOS_AT_ONCE))
        done = ray.data.from_items([asdict(job) for job in jobs], override_num_blocks=pieces).map_batches(
            PhotoWorker,
            fn_constructor_args=(load, wanted, out),
            batch_size=PHOTOS_AT_ONCE,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_gpus=1 if gpus else 0,
            num_cpus=0 if gpus else 1,
        )
        for row in done.iter_rows():
            yield json.loads(row["records"])

    return run
