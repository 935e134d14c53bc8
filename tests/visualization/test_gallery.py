import json
import re

import pytest
from click.testing import CliRunner

from drywall_seg.cli import main
from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import prepare
from drywall_seg.evaluation.evaluate import evaluate, run_predictor
from drywall_seg.runs import write_csv, write_json
from drywall_seg.visualization.gallery import OWN, write_gallery
from drywall_seg.visualization.viewer import viewer_block


@pytest.fixture
def run(project):
    """An evaluated run of the shipped model on the sample."""
    config = resolve_config(run_name="g")
    manifest = prepare(config)
    table, _ = evaluate(run_predictor(config), manifest, "test")
    write_csv(project / "outputs" / "g" / "per_image.csv", table)
    write_json(project / "outputs" / "g" / "config.json", config.to_dict())
    return config, manifest, table


def views_of(path):
    text = path.read_text()
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S)[1])["views"]


def test_the_images_are_in_the_order_asked_for(run, project):
    config, manifest, table = run
    out, said = write_gallery(config, manifest)
    assert out == project / "outputs" / "g" / "gallery.html"
    worst = table.sort_values("iou")
    assert said == f"{len(table)} of {len(table)} images, worst first."
    assert [view["note"][:8] for view in views_of(out)] == [f"IoU {value:.2f}" for value in worst.iou]
    out, said = write_gallery(config, manifest, project / "x.html", order="best", label="joint_line", limit=2)
    lines = table[table.label == "joint_line"].sort_values("iou", ascending=False)
    assert said == f"2 of {len(lines)} images, best first. Left out: {len(lines) - 2} over the limit of 2."
    assert [view["name"] for view in views_of(out)] == [name.rpartition("/")[2] for name in lines.image_id[:2]]
    assert write_gallery(config, manifest, split="val", limit=1)[0].name == "gallery-val.html"


@pytest.mark.parametrize("budget", [600_000, 450_000, 130_000])
def test_the_budget_is_kept_by_scaling_and_then_by_choosing(run, project, budget):
    config, manifest, table = run
    out, said = write_gallery(config, manifest, project / "x.html", budget=budget)
    size, views = out.stat().st_size, views_of(out)
    assert budget / 4 < size <= budget
    assert said in out.read_text()
    if budget == 130_000:
        assert 0 < len(views) < len(table) and f"{len(table) - len(views)} that did not fit 0.13 MB" in said
    else:
        assert len(views) == len(table)
    factors = {view["factor"] for view in views}
    assert factors == {1} or "Shown at 1/" in said
    assert max(factors) > 1


def test_what_a_page_takes_without_an_image_is_counted():
    assert len(viewer_block([], "still", strip=True)) < OWN - 2000  # the page around it


def test_a_budget_for_nothing_is_refused_and_an_empty_part_is_said(run, project):
    config, manifest, _ = run
    with pytest.raises(ValueError, match="budget is 61000 bytes, which is too little"):
        write_gallery(config, manifest, project / "x.html", budget=61_000)
    assert not (project / "x.html").exists()
    with pytest.raises(ValueError, match="order is 'wrost', not one of worst, best, doubt"):
        write_gallery(config, manifest, order="wrost")
    with pytest.raises(ValueError, match="label is 'screw'"):
        write_gallery(config, manifest, label="screw")
    empty = manifest.table[manifest.table.label != "joint_line"]
    table = type(manifest)(empty, manifest.data_root, manifest.folder, manifest.info)
    scores = project / "outputs" / "g" / "per_image.csv"
    head, *lines = scores.read_text().splitlines(True)
    scores.write_text(head + "".join(line for line in lines if "joint_line" not in line))
    out, said = write_gallery(config, table, label="joint_line", order="name")
    assert "0 of 0 images" in said and "the test part has no image of joint_line." in out.read_text()


def test_images_that_were_not_scored_are_shown_too(run):
    config, manifest, _ = run
    out, said = write_gallery(config, manifest, split="val", limit=3)  # by name: there is no worst
    assert len(views_of(out)) == 3 and "IoU" not in views_of(out)[0]["note"]


def test_by_the_command_line(run, project):
    done = CliRunner().invoke(main, ["gallery", "g", "--limit", "2", "--out", "g.html"], catch_exceptions=False)
    assert done.exit_code == 0 and "2 of" in done.output
    assert len(views_of(project / "g.html")) == 2
    with pytest.raises(FileNotFoundError, match="outputs/h: no run is there"):
        CliRunner().invoke(main, ["gallery", "h"], catch_exceptions=False)
