"""The ray engine on two workers of this machine; slow, since each worker imports torch."""

from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw

from drywall_seg.images import read_mask
from drywall_seg.inference import Predictor
from drywall_seg.inference.files import Wanted, predict_files
from drywall_seg.inference.photos import find_photos, name_jobs
from tests.faults.table import SAME

ray = pytest.importorskip("ray")
from drywall_seg.inference.cluster import ray_engine  # noqa: E402

pytestmark = pytest.mark.slow
ASKED = Wanted(("segment crack", "segment taping area"), 0.2)
LOAD = partial(Predictor.load, "compact", 128)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Forty drawn walls in two folders, one of them broken."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(5)
    for number in range(40):
        size = tuple(int(side) for side in rng.integers(100, 300, 2))
        image = Image.new("RGB", size, tuple(rng.integers(150, 230, 3).tolist()))
        points = [tuple(point) for point in (rng.random((4, 2)) * size).tolist()]
        ImageDraw.Draw(image).line(points, fill=(60, 55, 50), width=int(rng.integers(2, 8)))
        path = folder / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    (folder / "a" / "06.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def local(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("local")
    table, errors, _ = predict_files(LOAD(), [photos], ASKED, out)
    assert len(table) == 78 and list(errors) == [str(photos / "a" / "06.png")]
    assert any(read_mask(path).any() for path in table["mask"])
    return out


def masks(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in Path(out).rglob("*.png")}


@pytest.mark.fault("machines", SAME)
def test_two_workers_write_the_same_masks(photos, local, tmp_path):
    table, errors, _ = predict_files(LOAD(), [photos], ASKED, tmp_path, engine=ray_engine(LOAD, 2))
    assert len(table) == 78 and list(errors) == [str(photos / "a" / "06.png")]
    assert masks(tmp_path) == masks(local)
    seen = []
    predict_files(LOAD(), [photos], ASKED, tmp_path, engine=lambda _, jobs, *rest: seen.extend(jobs) or [])
    assert [Path(job.photo).name for job in seen] == ["06.png"]  # the rest is there already


@pytest.mark.fault("killed prediction", SAME)
def test_the_photos_of_a_killed_worker_are_done_again(photos, local, tmp_path):
    killed = []

    def deadly(*arguments):
        for number, records in enumerate(ray_engine(LOAD, 2)(*arguments)):
            if number == 3:
                mine = psutil.Process().children(recursive=True)  # another cluster may be here too
                workers = [p for p in mine if "PhotoWorker" in str([p.name(), *p.cmdline()])]
                assert len(workers) == 2
                workers[0].kill()
                killed.append(workers[0].pid)
            yield records

    table, _, _ = predict_files(LOAD(), [photos], ASKED, tmp_path, engine=deadly)
    assert killed and not psutil.pid_exists(killed[0])
    assert len(table) == 78 and masks(tmp_path) == masks(local)


@pytest.mark.fault("machines", SAME)
def test_photos_and_masks_in_a_bucket(photos, local, tmp_path, monkeypatch):
    moto = pytest.importorskip("moto.server")
    fsspec = pytest.importorskip("fsspec")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    ray.shutdown()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)  # workers inherit the environment
    try:
        bucket = fsspec.filesystem("s3", endpoint_url=settings["AWS_ENDPOINT_URL"], skip_instance_cache=True)
        bucket.mkdir("site")
        bucket.put(str(photos), "site/photos", recursive=True)
        assert len(find_photos(["s3://site/photos"], "s3://site/out", ASKED.prompts)) == 40
        for engine in (ray_engine(LOAD, 2), None):  # the second finds all there
            table, errors, _ = predict_files(LOAD(), ["s3://site/photos"], ASKED, "s3://site/out", "rle", engine)
            assert len(table) == 78 and list(errors) == ["s3://site/photos/a/06.png"]
            bucket.invalidate_cache()
        bucket.get("site/out", str(tmp_path / "back"), recursive=True)
        assert masks(tmp_path / "back") == masks(local)
        assert {"predictions.csv", "predictions.coco.json"} <= {path.name for path in (tmp_path / "back").iterdir()}
        jobs = name_jobs(find_photos(["s3://site/photos/b/01.png"], "s3://site/out", ASKED.prompts), [])
        assert [(job.folder, job.stem) for job in jobs] == [("", "01")]
    finally:
        server.stop()
