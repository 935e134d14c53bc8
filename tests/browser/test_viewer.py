"""The viewer, driven by mouse, keyboard and touch, wherever it can be opened."""

import json
import shutil
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from click.testing import CliRunner
from markupsafe import Markup
from pycocotools import mask as coco_mask

from drywall_seg.cli import main
from drywall_seg.data.corrections import import_corrections
from drywall_seg.data.manifest import build_manifest
from drywall_seg.evaluation.metrics import dice, iou, mask_counts, score_histogram
from drywall_seg.images import read_mask
from drywall_seg.inference.scores import first_level
from drywall_seg.visualization.html import render
from drywall_seg.visualization.viewer import encode_view, threshold_viewer, viewer_block
from drywall_seg.visualization.views import Item, look, reduce_by

from . import pages, sample_views, timing

pytestmark = pytest.mark.slow

# Reads what is shown at each of the 256 levels, and the marked pixels of the canvas by colour.
READ_ALL = """() => {
  const root = document.querySelector('.dws-viewer'), part = (name) => root.querySelector(`[data-is="${name}"]`);
  const slider = part('threshold'), marks = part('marks'), rows = [];
  for (let level = 0; level < 256; level++) {
    slider.value = level;
    slider.dispatchEvent(new Event('input', {bubbles: true}));
    const pixels = marks.getContext('2d').getImageData(0, 0, marks.width, marks.height).data, seen = {};
    for (let i = 0; i < pixels.length; i += 4) {
      const key = [pixels[i], pixels[i + 1], pixels[i + 2]].join();
      if (pixels[i + 3]) seen[key] = (seen[key] ?? 0) + 1;
    }
    rows.push([...['iou', 'dice', 'tp', 'fp', 'fn'].map((name) => part(name).textContent), seen]);
  }
  return rows;
}"""
COLORS = {"tp": "0,158,115", "fp": "213,94,0", "fn": "0,114,178"}


@pytest.fixture(scope="module")
def views(sample_root, tmp_path_factory):
    return sample_views.views_of(sample_root, tmp_path_factory.mktemp("processed"))


@pytest.fixture
def open_views(page, tmp_path):
    """`open_views(views)`: a page of its own that was opened from disk."""

    def open_(views, viewport="wide", side=1280, **options):
        path = tmp_path / "viewer.html"
        block = threshold_viewer(views, side).data
        path.write_text(render("gallery", title="Viewer", lines=[], block=Markup(block)), encoding="utf-8")
        opened = page(viewport, **options)
        opened.goto(path.as_uri())
        if views and options.get("java_script_enabled", True):
            opened.locator(".dws-live").wait_for()
            shown(opened)
        return opened

    return open_


def part(page, name):
    return page.locator(f'[data-is="{name}"]').first


def shown(page):
    """Waits until a photo is there."""
    page.wait_for_function("() => !document.querySelector('[data-is=badge]').textContent.startsWith('Loading')")


def text(page, name):
    return part(page, name).text_content()


@pytest.fixture(params=["file", "exported", "voila", "jupyterlab"])
def open_anywhere(request, views, sample_root, tmp_path, write_notebook):
    """The same viewer: from disk, in an executed and exported notebook, in Voila, in JupyterLab."""
    where = request.param

    def open_():
        if where == "file":
            return request.getfixturevalue("open_views")(views)
        source = sample_views.cell(sample_root, tmp_path / "processed", sample_views.VIEWER)
        notebook = write_notebook("viewer", source)
        if where == "exported":
            opened = request.getfixturevalue("page")()
            opened.goto(request.getfixturevalue("executed_html")(notebook).as_uri())
        else:
            opener = {"voila": "open_voila", "jupyterlab": "open_lab"}[where]
            opened = request.getfixturevalue(opener)(notebook, ".dws-live")
        opened.locator(".dws-live").wait_for()
        shown(opened)
        return opened

    open_.where = where
    return open_


def test_it_answers_with_the_figures_of_metrics_at_every_level_wherever_it_is(open_anywhere, views, figures):
    page = open_anywhere()
    view = views[0]
    for level, (*said, seen) in enumerate(page.evaluate(READ_ALL)):
        counts = mask_counts(np.where(view.levels >= level, 255, 0), view.target)
        assert said == [f"{iou(*counts):.4f}", f"{dice(*counts):.4f}", *map(str, counts)]
        assert seen == {COLORS[name]: n for name, n in zip(COLORS, counts, strict=True) if n}
    slider = part(page, "threshold")
    slider.focus()
    found = timing.spans(
        page, lambda i: page.keyboard.press("ArrowLeft"), n=50, start="input", end="drawn", target=None
    )
    figures(
        f"viewer, {open_anywhere.where}: {median(found):.1f} ms from input to mask, median of {len(found)} at 640 px"
    )
    assert text(page, "threshold-text") == "0.803"  # 50 levels below the last
    pages.quiet(page)


def test_it_begins_at_the_models_threshold(open_views, views):
    page = open_views(views)
    assert text(page, "threshold-text") == f"{views[0].threshold:.3f}"
    assert part(page, "threshold").input_value() == str(first_level(views[0].threshold))
    part(page, "threshold").fill("3")
    assert text(page, "threshold-text") == "0.011"
    page.locator('[data-do="stored"]').click()
    assert text(page, "threshold-text") == f"{views[0].threshold:.3f}"


def test_keys(open_views, views):
    page = open_views(views)
    stage = part(page, "stage")
    stage.focus()
    level = int(part(page, "threshold").input_value())
    for keys, expected in (("ArrowRight", 1), ("Shift+ArrowRight", 11), ("ArrowLeft", 10), ("Shift+ArrowLeft", 0)):
        page.keyboard.press(keys)
        assert int(part(page, "threshold").input_value()) == level + expected
    before = page.locator('[data-do="before"]')
    page.keyboard.press("Space")
    assert before.get_attribute("aria-pressed") == "true" and text(page, "badge") == "Photo alone"
    assert part(page, "marks").evaluate("marks => getComputedStyle(marks).visibility") == "hidden"
    page.keyboard.press("Space")
    assert part(page, "marks").evaluate("marks => getComputedStyle(marks).visibility") == "visible"
    page.keyboard.press("PageDown")
    shown(page)
    assert part(page, "photo").input_value() == "1"
    page.keyboard.press("PageUp")
    shown(page)
    assert part(page, "photo").input_value() == "0"
    place = "layers => new DOMMatrix(getComputedStyle(layers).transform).toFloat64Array()"
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert part(page, "layers").evaluate(place)[0] == pytest.approx(2.25)
    left = part(page, "layers").evaluate(place)[12]
    page.keyboard.press("d")
    assert part(page, "layers").evaluate(place)[12] == pytest.approx(left - 60)
    page.keyboard.press("0")
    assert part(page, "layers").evaluate(place)[0] == 1
    pages.quiet(page)


def test_every_control_can_be_reached_by_the_keyboard_and_has_a_name(open_views, views):
    page = open_views(views)
    page.locator("summary").click()
    part(page, "review").scroll_into_view_if_needed()
    page.locator("h1").click()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "document.activeElement.dataset.is ?? document.activeElement.dataset.do ?? document.activeElement.value"
        )
        reached.add(found)
    controls = page.locator(
        ".dws-live :is(button, select, input:not([type=radio]), [tabindex='0']):visible:not(:disabled)"
    )
    names = controls.evaluate_all("all => all.map(one => one.dataset.is ?? one.dataset.do)")
    assert len(names) >= 14 and set(names) <= reached
    page.locator('input[type="radio"][value=""]').focus()
    page.keyboard.press("ArrowRight")  # radios are one stop, and arrows go on
    assert page.locator('input[type="radio"][value="right"]').is_checked()


def test_mouse(open_views, views):
    page = open_views(views)
    slider = part(page, "threshold")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert text(page, "threshold-text") == "1.000"
    stage = part(page, "stage").bounding_box()
    page.mouse.move(stage["x"] + stage["width"] / 4, stage["y"] + 50)
    page.set_viewport_size({"width": 1280, "height": 500})
    page.mouse.wheel(0, 100)
    page.wait_for_function("() => scrollY > 0")  # the wheel alone scrolls the page
    page.evaluate("scrollTo(0, 0)")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    transform = "layers => new DOMMatrix(getComputedStyle(layers).transform).toFloat64Array()"
    page.wait_for_function("() => document.querySelector('[data-is=stage]').hasAttribute('data-zoomed')")
    before = part(page, "layers").evaluate(transform)
    assert before[0] == pytest.approx(np.e, abs=0.01)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] / 4 - 40, stage["y"] + 40, steps=3)
    page.mouse.up()
    after = part(page, "layers").evaluate(transform)
    assert (after[12], after[13]) == (
        pytest.approx(before[12] - 40, abs=1),
        pytest.approx(before[13] - 10, abs=1),
    )
    page.locator('[data-do="next"]').click()
    shown(page)
    assert part(page, "layers").evaluate(transform)[0] == 1
    pages.quiet(page)


def touch(page, kind, *points):
    page.touching = getattr(page, "touching", None) or page.context.new_cdp_session(page)
    spots = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    page.touching.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": spots})


def test_touch(open_views, views):
    page = open_views(views, "phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    part(page, "stage").scroll_into_view_if_needed()
    box = part(page, "stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch(page, "touchStart", (x - 20, y), (x + 20, y))
    for step in range(1, 6):
        touch(page, "touchMove", (x - 20 - 8 * step, y), (x + 20 + 8 * step, y))
    touch(page, "touchEnd")
    transform = "layers => new DOMMatrix(getComputedStyle(layers).transform).toFloat64Array()[0]"
    assert part(page, "layers").evaluate(transform) == pytest.approx(3, abs=0.1)
    page.locator('[data-do="whole"]').tap()
    page.locator('[data-do="paint"]').tap()
    part(page, "stage").scroll_into_view_if_needed()
    box = part(page, "stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch(page, "touchStart", (x, y))
    for step in range(1, 6):
        touch(page, "touchMove", (x + 10 * step, y))
    touch(page, "touchEnd")
    assert page.locator('input[value="redraw"]').is_checked()
    assert page.locator('[data-do="save"]').text_content() == "Save 1 correction"
    # A second finger moves the photo; what the first had begun to paint goes.
    touch(page, "touchStart", (x, y + 30))
    touch(page, "touchMove", (x, y + 40))
    touch(page, "touchStart", (x, y + 40), (x + 40, y + 40))
    touch(page, "touchMove", (x, y + 60), (x + 40, y + 60))
    touch(page, "touchEnd")
    page.locator('[data-do="undo"]').tap()
    assert page.locator('[data-do="undo"]').is_disabled()
    pages.quiet(page)


def test_a_notebook_that_is_not_trusted_has_a_picture_and_no_dead_control(
    executed_html, write_notebook, sample_root, tmp_path, folder, lab, page, keep_picture
):
    """JupyterLab drops scripts and styles of a notebook that came from somebody else."""
    cells = [
        sample_views.cell(sample_root, tmp_path / "p", last) for last in (sample_views.VIEWER, sample_views.SLIDER)
    ]
    notebook = write_notebook("mailed", *cells)
    executed_html(notebook)
    shutil.copy(tmp_path / notebook.name, folder / "untrusted.ipynb")
    opened = page()
    opened.goto(f"{lab}/lab/workspaces/untrusted/tree/untrusted.ipynb?reset", wait_until="commit")
    outputs = opened.locator(".jp-OutputArea-output")
    pictures = outputs.locator("img[alt^='Original, ground truth']")
    pictures.nth(1).wait_for()
    assert [pictures.nth(number).is_visible() for number in range(pictures.count())] == [True, True]
    assert outputs.locator("button, input, select").count() == 0
    keep_picture(opened, "not trusted")


STATES = ["truth", "no truth", "nothing found", "empty truth", "unknown sentence", "not present", "broken", "painted"]


def in_state(state, views):
    view = views[-1]
    if state == "no truth":
        return replace(view, target=None, histogram=np.stack([view.histogram.sum(0), view.histogram[1] * 0]))
    if state == "nothing found":
        low = view.levels // 2
        return replace(view, threshold=1.0, levels=low, histogram=score_histogram(low, view.target))
    if state == "empty truth":
        histogram = np.stack([view.histogram.sum(0), view.histogram[1] * 0])
        return replace(view, target=view.target * 0, histogram=histogram)
    if state == "unknown sentence":
        item = Item(
            '<script>alert("x")</script> \u202egpj.jpg', view.item.photo, "segment <b>dog</b>", None, "<i>note</i>"
        )
        return replace(view, item=item, understood=False)
    return replace(view, presence=0.2) if state == "not present" else view


SAYS = {
    "no truth": ("truth-text", "No truth is known for this photo and sentence"),
    "nothing found": ("badge", "Nothing found at this threshold"),
    "empty truth": ("badge", "Truth: nothing of it here"),
    "unknown sentence": ("warning", "“segment <b>dog</b>” is no sentence of the model's labels"),
    "not present": ("warning", "Presence is under the model's cut of"),
    "broken": ("badge", "Cannot be shown"),
    "painted": ("figures-of", "Of the mask as painted"),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", ["wide", "phone"])
@pytest.mark.parametrize("state", STATES)
def test_each_state_says_what_it_is_without_a_serious_fault(open_views, views, state, viewport, scheme, keep_picture):
    view = in_state(state, views)
    if state == "broken":
        view = replace(view, levels=view.levels[:-1])
    page = open_views([view, views[0]], viewport, color_scheme=scheme)
    if state == "painted":
        page.locator('[data-do="paint"]').click()
        part(page, "stage").click(position={"x": 60, "y": 60})
    if state in SAYS:
        name, words = SAYS[state]
        assert words in text(page, name)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    keep_picture(page, f"viewer {state} {viewport} {scheme}")
    pages.axe(page)
    pages.quiet(page)


def test_no_view_and_no_script(open_views, views, browser, keep_picture):
    page = open_views([])
    assert "Nothing to show: no photo was given." in page.locator("main").text_content()
    pages.axe(page)
    page = open_views(views[:1], java_script_enabled=False)
    assert page.locator(".dws-still img").is_visible() and not page.locator(".dws-live").is_visible()
    keep_picture(page, "viewer without script")


def test_hostile_names_are_text_everywhere(open_views, views):
    page = open_views([in_state("unknown sentence", views)])
    page.on("dialog", lambda dialog: pytest.fail("a script of a file name ran"))
    assert r'<script>alert("x")</script> \u202egpj.jpg' in text(page, "photo")
    assert "<i>note</i>" in text(page, "about")
    assert page.locator(".dws-viewer i, .dws-viewer b").count() == 0
    pages.quiet(page)


def test_corrections_come_back_and_are_undone(open_views, views):
    page = open_views(views)
    page.locator('[data-do="paint"]').click()
    part(page, "stage").click(position={"x": 60, "y": 60})
    part(page, "stage").click(position={"x": 90, "y": 60})
    painted = text(page, "area")
    page.locator('[data-do="next"]').click()
    shown(page)
    page.get_by_label("Right as shown").check()
    assert page.locator('[data-do="save"]').text_content() == "Save 2 corrections"
    page.reload()  # closed by mistake
    shown(page)
    assert text(page, "saved") == "2 judgements of before came back from this browser."
    assert text(page, "area") == painted
    page.locator('[data-do="undo"]').click()
    assert text(page, "area") != painted
    page.locator('[data-do="undo"]').click()
    assert not page.locator('input[value="redraw"]').is_checked()
    assert page.locator('[data-do="save"]').text_content() == "Save 1 correction"
    pages.quiet(page)


def save(page, path):
    with page.expect_download() as download:
        page.locator('[data-do="save"]').click()
    download.value.save_as(path)
    assert "Saved as corrections-" in text(page, "saved")
    return json.loads(path.read_text())["corrections"]


@pytest.mark.parametrize("side", [1280, 320])
def test_what_is_saved_is_what_is_seen(open_views, views, side, tmp_path):
    """Right, wrong, to be redrawn, painted and erased, at the photo's own size and at half of it."""
    page = open_views(views, side=side)
    page.get_by_label("Right as shown").check()
    part(page, "threshold").fill("77")  # what is kept is what is seen last
    for label in ("Wrong: there is none here", "To be redrawn"):
        page.locator('[data-do="next"]').click()
        shown(page)
        page.get_by_label(label).check()
    right, wrong, redraw = save(page, tmp_path / "c.json")
    assert [c["verdict"] for c in (right, wrong, redraw)] == ["right", "wrong", "redraw"]
    assert redraw["counts"] is None and right["threshold"] == 0.301
    import_corrections(tmp_path / "c.json", tmp_path / "a")
    overlay = json.loads((tmp_path / "a" / "reviewed.coco.json").read_text())
    by_sha = {(entry["sha256"], entry["label"]): entry for entry in overlay["images"]}
    assert set(by_sha) == {(views[0].sha256, views[0].label), (views[1].sha256, views[1].label)}
    (shape,) = overlay["annotations"]
    seen = reduce_by(views[0].levels, 640 // min(side, 640)) >= 77
    factor = views[0].levels.shape[0] // seen.shape[0]
    own_size = seen.repeat(factor, axis=0).repeat(factor, axis=1)
    assert np.array_equal(coco_mask.decode(shape["segmentation"]) > 0, own_size)


def test_paint_save_import_prepare_train(sample_root, page, tmp_path, monkeypatch, figures):
    """From the browser to the next training: what was painted is in the mask that it learns from."""
    predictor, items = sample_views.load(sample_root, tmp_path / "first")
    manifest = build_manifest(sample_root, tmp_path / "first")
    row = next(r for r in manifest.rows("train").itertuples() if r.label == "crack" and r.mask_area)
    view = look(predictor, Item("wall", manifest.image_file(row), "segment crack", manifest.mask_file(row)))
    file = tmp_path / "mailed.html"
    block = threshold_viewer([view]).data
    file.write_text(render("gallery", title="Mailed", lines=[], block=Markup(block)), encoding="utf-8")
    opened = page()
    opened.goto(file.as_uri())
    shown(opened)
    part(opened, "threshold").fill("255")
    opened.locator('[data-do="paint"]').click()
    part(opened, "brush").fill("9")
    box = part(opened, "base").bounding_box()
    scale = box["width"] / view.levels.shape[1]
    opened.mouse.move(box["x"] + 40.5 * scale, box["y"] + 60.5 * scale)
    opened.mouse.down()
    opened.mouse.move(box["x"] + 90.5 * scale, box["y"] + 60.5 * scale, steps=10)
    opened.mouse.up()
    opened.locator('[data-do="erase"]').click()
    part(opened, "stage").click(position={"x": 65.5 * scale, "y": 60.5 * scale})
    save(opened, tmp_path / "c.json")
    project = tmp_path / "project"
    (project / "data" / "annotations").mkdir(parents=True)
    (project / "notebooks").mkdir()
    (project / "notebooks" / "00_run_all.ipynb").write_text("{}")
    monkeypatch.chdir(project)
    run = CliRunner()
    assert run.invoke(main, ["import-corrections", str(tmp_path / "c.json")]).exit_code == 0
    overlays = sorted((project / "data" / "annotations").glob("*.coco.json"))
    assert [overlay.name for overlay in overlays] == ["reviewed.coco.json"]
    done = run.invoke(
        main,
        [
            "train",
            "-p",
            "data_root",
            str(sample_root),
            "-p",
            "image_size",
            "64",
            "-p",
            "epochs",
            "1",
            "--run-name",
            "t",
        ],
    )
    assert done.exit_code == 0, done.output
    assert (project / "outputs" / "t" / "checkpoint" / "model.safetensors").is_file()
    again = build_manifest(sample_root, project / "data" / "processed" / sample_root.name, overlays=overlays)
    assert again.info["summary"]["overlays"]["reviewed.coco.json"]["n_replaced"] >= 1
    new = next(r for r in again.table.itertuples() if r.image_id == row.image_id and r.label == "crack")
    truth = read_mask(again.mask_file(new))
    assert new.split == "train" and new.annotation_kind == "rle" and new.mask_area == np.count_nonzero(truth)
    y, x = np.mgrid[: truth.shape[0], : truth.shape[1]]
    along = np.clip(x, 40, 90)
    inside = (x - along) ** 2 + (y - 60) ** 2 <= 4.5**2
    erased = (x - 65) ** 2 + (y - 60) ** 2 <= 4.5**2
    certain = (
        (view.levels < 255)
        & (np.abs(np.hypot(x - along, y - 60) - 4.5) > 1)
        & (np.abs(np.hypot(x - 65, y - 60) - 4.5) > 1)
    )
    assert np.array_equal((truth > 0)[certain], (inside & ~erased)[certain])
    assert (inside & ~erased & certain).sum() > 300


def test_a_gallery_of_two_hundred_decodes_what_is_looked_at(page, views, tmp_path, figures):
    """Opened, it shows one photo; small pictures are loaded when they come near."""
    entries = [encode_view(views[number % 6], quality=60 + number // 6) for number in range(200)]  # no two alike
    for number, entry in enumerate(entries):
        entry["name"] = f"wall {number}.jpg"
    block = viewer_block(entries, "still", strip=True)
    path = tmp_path / "gallery.html"
    path.write_text(render("gallery", title="Gallery", lines=["200"], block=Markup(block)), encoding="utf-8")
    opened = page()
    opened.goto(path.as_uri())
    shown(opened)
    seconds = opened.evaluate("performance.now()") / 1000
    figures(f"gallery of 200 images, {path.stat().st_size / 1e6:.1f} MB: {seconds:.2f} s until the first is shown")
    thumbs = opened.locator(".dws-strip img")
    assert thumbs.count() == 200
    loaded = thumbs.evaluate_all("all => all.filter(one => one.src).length")
    assert 0 < loaded < 60
    opened.locator(".dws-strip button").nth(150).click()
    shown(opened)
    assert text(opened, "photo-count") == "Photo 151 of 200"
    assert opened.locator('.dws-strip [aria-current="true"]').count() == 1
    pages.axe(opened)
    pages.quiet(opened)
