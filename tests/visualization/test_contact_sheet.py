import base64
import io
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import Manifest
from drywall_seg.inference import Prediction
from drywall_seg.visualization import contact_sheet, sheet_browser
from drywall_seg.visualization.contact_sheet import predict_when_needed, render_sheet, shrink_mask
from drywall_seg.visualization.panels import PREDICTION_COLOR
from drywall_seg.visualization.sheet_browser import WORKING, browse_panels
from drywall_seg.visualization.sheet_rows import choose_rows, order_rows, orders_of, sheet_rows

SIDE = 10  # pixels; a row's counts are then per cent of the photo


def image(name, area=0, label="crack", photo=None, split="test"):
    """A row of a manifest."""
    image_id = f"e.coco/train/{name}"
    paths = {"image_path": image_id, "mask_path": f"masks/{label}/{name}.png", "annotation_kind": "polygon"}
    about = {"image_id": image_id, "photo_id": photo or name, "label": label, "split": split, "mask_area": area}
    return about | paths | {"source": "e.coco", "width": SIDE, "height": SIDE}


def score(name, tp, fp, fn, doubt=0.0, label="crack", prompt="segment crack"):
    """A row of per_image.csv."""
    iou, dice = (1.0, 1.0) if not tp + fp + fn else (tp / (tp + fp + fn), 2 * tp / (2 * tp + fp + fn))
    about = {"image_id": f"e.coco/train/{name}", "label": label, "prompt": prompt, "mask_file": f"{name}.png"}
    about |= {"threshold": 0.4, "presence": 0.9, "doubt": doubt, "photo_id": "not read"}
    return about | {"tp": tp, "fp": fp, "fn": fn, "iou": iou, "dice": dice}


@pytest.fixture
def config(tmp_path):
    return resolve_config(outputs_root=str(tmp_path / "outputs"), run_name="mine")


def write_scores(tmp_path, rows, run="mine"):
    folder = tmp_path / "outputs" / run
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "per_image.csv", index=False)


def manifest_of(tmp_path, rows):
    return Manifest(pd.DataFrame(rows), tmp_path / "data", tmp_path / "processed", {})


def square(side=0, size=SIDE):
    mask = np.zeros((size, size), np.uint8)
    mask[:side, :side] = 255
    return mask


def write_files(tmp_path, row, truth, mask=None, run="mine"):
    """Writes what a row of the manifest names, and a run's mask."""
    photo = np.full((*truth.shape, 3), 200, np.uint8)
    files = {tmp_path / "data" / row["image_path"]: photo, tmp_path / "processed" / row["mask_path"]: truth}
    if mask is not None:
        files[tmp_path / "outputs" / run / "masks" / f"{row['image_id'].split('/')[-1]}.png"] = mask
    for file, pixels in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file, format="PNG")


class Page(HTMLParser):
    """Tags, pictures and text of a page as a browser reads them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.pictures, self.alts, self.texts = [], [], [], []
        self.feed(html)
        self.text = " ".join(self.texts).replace("\N{NO-BREAK SPACE}", " ")

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            data = dict(attrs)["src"].removeprefix("data:image/jpeg;base64,")
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))
            self.alts.append(dict(attrs)["alt"])

    def handle_data(self, data):
        if data.strip() and self.tags[-1] != "style":
            self.texts.append(data.strip())


FOUR = [image("a.jpg", 10), image("b.jpg", 10, photo="wall"), image("c.jpg", 8, photo="wall"), image("d.jpg", 0)]
SCORES = [
    score("a.jpg", 5, 0, 5, 0.1),  # IoU 0.5
    score("b.jpg", 0, 30, 10, 0.9),  # 0
    score("c.jpg", 8, 2, 0, 0.2),  # 0.8
    score("d.jpg", 0, 0, 0, 0.0),  # 1: nothing there, nothing found
]


def names(rows):
    return "".join(rows.name.str[0])


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("worst", "bacd"),
        ("best", "dcab"),
        ("doubt", "bcad"),
        ("false_alarm", "bcad"),  # 30, 2, and two without in the order of their names
        ("miss", "bacd"),  # 10, 5, and two without
        ("photograph", "bcad"),  # c beside b, the worst, of which it is a copy
        ("name", "abcd"),
    ],
)
def test_orders(tmp_path, config, order, expected):
    write_scores(tmp_path, SCORES)
    rows = sheet_rows(config, manifest_of(tmp_path, FOUR[::-1]))  # there are no photos: none is opened
    assert names(order_rows(rows, order)) == expected


def test_what_a_row_says(tmp_path, config):
    write_scores(tmp_path, SCORES)
    table = [*FOUR[::-1], image("a.jpg", 4, "taping_area")]  # the same file with another label is no copy
    rows = sheet_rows(config, manifest_of(tmp_path, table))
    rows = rows[rows.label == "crack"].set_index("name")[::-1]
    assert rows.loc["b.jpg", ["false_alarm", "missed"]].tolist() == [0.3, 0.1]
    assert rows.copy_number.tolist() == [1, 1, 2, 1]
    assert rows.copies.tolist() == [1, 2, 2, 1]
    assert not rows.stale.any()
    assert rows.photo_id["a.jpg"] == "a.jpg"


def test_rows_without_scores_come_last_and_have_orders_of_their_own(tmp_path, config):
    write_scores(tmp_path, SCORES[:2])
    more = [image("0.jpg"), image("t.jpg", split="train", photo="z"), image("u.jpg", split="train", photo="y")]
    rows = sheet_rows(config, manifest_of(tmp_path, FOUR[:2] + more))
    test, train = choose_rows(rows, None, "test"), choose_rows(rows, "crack", "train")
    assert names(order_rows(test, "worst")) == "ba0"
    assert orders_of(test) == ["worst", "best", "doubt", "false_alarm", "miss", "photograph", "name"]
    assert orders_of(train) == ["photograph", "name"]
    assert names(order_rows(train, "photograph")) == "ut"
    assert choose_rows(rows, "joint_line", "test").empty


def test_an_older_run_has_no_doubt(tmp_path, config):
    write_scores(tmp_path, [{n: v for n, v in row.items() if n != "doubt"} for row in SCORES])
    rows = sheet_rows(config, manifest_of(tmp_path, FOUR))
    assert "doubt" not in orders_of(rows)
    write_files(tmp_path, FOUR[0], square(3), square(2))
    text = Page(render_sheet(rows[:1], config, manifest_of(tmp_path, FOUR))).text
    assert "threshold 0.40" in text and ", doubt" not in text


def test_a_run_of_other_data_and_one_that_was_not_evaluated(tmp_path, config):
    with pytest.raises(FileNotFoundError, match="run 03_evaluate with run_name 'mine'"):
        sheet_rows(config, manifest_of(tmp_path, FOUR))
    write_scores(tmp_path, SCORES)
    with pytest.raises(ValueError, match="e.coco/train/d.jpg, crack is not in"):
        sheet_rows(config, manifest_of(tmp_path, FOUR[:3]))


def test_the_other_run(tmp_path, config):
    manifest = manifest_of(tmp_path, FOUR)
    write_scores(tmp_path, SCORES)
    with pytest.raises(FileNotFoundError, match="run 03_evaluate with run_name 'theirs'"):
        sheet_rows(config, manifest, "theirs")
    write_scores(tmp_path, [score("x.jpg", 1, 1, 1)], "theirs")
    with pytest.raises(ValueError, match="theirs/per_image.csv: no image in common with run 'mine'"):
        sheet_rows(config, manifest, "theirs")
    theirs = [score("a.jpg", 6, 0, 4), score("b.jpg", 9, 0, 1), score("c.jpg", 0, 0, 9)]
    write_scores(tmp_path, theirs, "theirs")
    rows = sheet_rows(config, manifest, "theirs").set_index("name")
    assert rows.difference[:2].tolist() == pytest.approx([-0.1, -0.9])
    assert rows.difference[2:].isna().all()  # c was scored against 9 pixels of truth, d not at all
    assert names(order_rows(rows.reset_index(), "difference")) == "bacd"

    for row in FOUR:
        write_files(tmp_path, row, square(3), square(3))
        write_files(tmp_path, row, square(3), square(), "theirs")
    page = Page(render_sheet(rows.reset_index(), config, manifest, "theirs"))
    assert page.tags.count("td") == 16
    assert page.text.count("theirs: nothing found") == 3
    assert "IoU 0.60: mine is 0.10 worse" in page.text
    assert "IoU 0.90: mine is 0.90 worse" in page.text
    assert "IoU 0.00 scored against another truth" in page.text
    assert "not scored by theirs" in page.text


def color_at(picture, x, y):
    return np.asarray(picture.convert("RGB"), float)[y, x]


def test_pictures_are_small_and_keep_a_hairline(tmp_path, config):
    row = image("a.jpg") | {"width": 1200, "height": 1200}
    line = square(size=1200)
    line[:, 900] = 255
    write_files(tmp_path, row, square(600, 1200), line)
    write_scores(tmp_path, [score("a.jpg", 0, 1200, 360000)])
    manifest = manifest_of(tmp_path, [row])
    page = Page(render_sheet(sheet_rows(config, manifest), config, manifest))
    assert [picture.size for picture in page.pictures] == [(480, 480)] * 3
    assert page.alts == ["a.jpg: Original", "a.jpg: Ground truth", "a.jpg: Prediction"]
    photo, truth, prediction = page.pictures
    assert np.ptp(color_at(photo, 100, 100)) < 5 and np.ptp(color_at(truth, 300, 300)) < 5
    assert color_at(truth, 100, 100)[2] - color_at(truth, 100, 100)[0] > 60  # blue
    wanted = np.array([int(PREDICTION_COLOR[i : i + 2], 16) for i in (1, 3, 5)])
    nearest = min(np.linalg.norm(color_at(prediction, x, 200) - wanted) for x in range(356, 365))
    assert nearest < 40
    assert np.ptp(color_at(prediction, 100, 200)) < 5


@pytest.mark.parametrize("size_hw", [(480, 480), (480, 333), (7, 480)])
def test_a_shrunk_line_is_whole(size_hw):
    mask = np.zeros((size_hw[0] * 9 + 4, size_hw[1] * 9 + 4), np.uint8)
    mask[:, mask.shape[1] // 3] = 255
    small = shrink_mask(mask, size_hw)
    assert small.shape == size_hw
    assert (small > 0).any(axis=1).all()
    assert (small > 0).sum(axis=1).max() <= 3


def test_what_was_not_found_and_what_is_not_there(tmp_path, config):
    rows = [image("a.jpg", 9), image("b.jpg", 0)]
    write_files(tmp_path, rows[0], square(3), square())
    write_files(tmp_path, rows[1], square(), square(2))
    write_scores(tmp_path, [score("a.jpg", 0, 0, 9), score("b.jpg", 0, 4, 0)])
    manifest = manifest_of(tmp_path, rows)
    text = Page(render_sheet(sheet_rows(config, manifest), config, manifest)).text
    assert text.count("Prediction: nothing found IoU 0.00, Dice 0.00 false alarm 0 %, missed 9.0 %") == 1
    assert "polygon, 9.0 % of the photo" in text
    assert text.count("Ground truth: nothing of it here Prediction IoU 0.00") == 1
    assert "false alarm 4.0 %, missed 0 %" in text


def test_a_changed_truth_is_said(tmp_path, config):
    write_scores(tmp_path, SCORES)
    manifest = manifest_of(tmp_path, [FOUR[0] | {"mask_area": 11}, *FOUR[1:]])
    rows = sheet_rows(config, manifest)
    assert rows.stale.tolist() == [True, False, False, False]
    assert render_sheet(rows, config, manifest).count("its truth has changed") == 1


def test_what_cannot_be_read_is_said_and_the_page_stays(tmp_path, config):
    for row in FOUR:
        write_files(tmp_path, row, square(3), square(3))
    (tmp_path / "data" / FOUR[0]["image_path"]).unlink()
    truth = tmp_path / "processed" / FOUR[1]["mask_path"]
    truth.write_bytes(truth.read_bytes()[:50])
    Image.fromarray(square(size=9)).save(tmp_path / "outputs/mine/masks/c.jpg.png")
    write_scores(tmp_path, SCORES)
    manifest = manifest_of(tmp_path, FOUR)
    page = Page(render_sheet(sheet_rows(config, manifest), config, manifest))
    assert page.text.count("Cannot be shown") == 3
    assert "a.jpg: no such file" in page.text
    assert f"{truth}: cannot be read as a mask" in page.text
    assert "masks/c.jpg.png: a mask of 9 x 9 pixels for a photo of 10 x 10" in page.text
    assert page.alts == ["d.jpg: Original", "d.jpg: Ground truth", "d.jpg: Prediction"]


@pytest.mark.parametrize("change", [(b"\rIHDR", b"\0IHDR"), (b"IDAT", b"\xffDAT")])
def test_a_mask_that_pillow_calls_broken_without_its_name(tmp_path, config, change):
    write_files(tmp_path, FOUR[0], square(3), square(3))
    mask = tmp_path / "outputs/mine/masks/a.jpg.png"
    mask.write_bytes(mask.read_bytes().replace(*change))
    write_scores(tmp_path, SCORES[:1])
    manifest = manifest_of(tmp_path, FOUR[:1])
    assert (
        f"{mask}: cannot be read as a mask (" in Page(render_sheet(sheet_rows(config, manifest), config, manifest)).text
    )


def test_names_and_sentences_are_shown_as_text(tmp_path, config):
    name = """<script>alert(1)<&"'\u202egpj.jpg"""
    prompt = "<img src=x onerror=alert(1)>\u2067"
    row = image(name)
    write_files(tmp_path, row, square(3), square(3))
    missing = image(f"0{name}")
    write_scores(tmp_path, [score(name, 9, 0, 0, prompt=prompt), score(f"0{name}", 9, 0, 0)])
    manifest = manifest_of(tmp_path, [row, missing])
    html = render_sheet(sheet_rows(config, manifest), config, manifest)
    page = Page(html)
    assert "script" not in page.tags and page.tags.count("img") == 3
    assert "\u202e" not in html and "\u2067" not in html
    shown = name.replace("\u202e", r"\u202e")
    assert shown in page.texts
    assert page.alts[0] == f"{shown}: Original"
    assert r"<img src=x onerror=alert(1)>\u2067, test part" in page.text


def stub(config, monkeypatch, side=3):
    """A model that finds a square, and how often it was loaded and asked."""
    calls = {"loaded": 0, "asked": []}

    class Predictor:
        def predict(self, photo, prompts, threshold, with_probs):
            calls["asked"].append((photo.shape, prompts, threshold))
            return [Prediction(prompts[0], None, square(side), 0.35, 0.8, 0.25)]

    def load(given):
        assert given is config
        calls["loaded"] += 1
        return Predictor()

    monkeypatch.setattr(contact_sheet, "run_predictor", load)
    return calls


def test_what_was_not_evaluated_is_predicted_when_it_is_shown(tmp_path, config, monkeypatch):
    calls = stub(config, monkeypatch)
    rows = [image("a.jpg", 10), image("t.jpg", 4, "joint_line", split="train"), image("u.jpg", 0, split="train")]
    write_files(tmp_path, rows[0], square(3), square(3))
    write_files(tmp_path, rows[1], square(2))
    write_files(tmp_path, rows[2], square())
    write_scores(tmp_path, SCORES[:1])
    manifest = manifest_of(tmp_path, rows)
    table, predict = sheet_rows(config, manifest), predict_when_needed(config)
    render_sheet(choose_rows(table, None, "test"), config, manifest, predict=predict)
    assert calls == {"loaded": 0, "asked": []}
    page = Page(render_sheet(choose_rows(table, None, "train"), config, manifest, predict=predict))
    prompts = ["trace joint line", "segment crack"]
    assert calls == {"loaded": 1, "asked": [((10, 10, 3), [prompt], None) for prompt in prompts]}
    assert "trace joint line, train part, not evaluated: predicted now" in page.text
    assert "IoU 0.44, Dice 0.62 false alarm 5.0 %, missed 0 % threshold 0.35, doubt 0.25" in page.text  # 4 of 9
    assert page.text.count("predicted now") == 2


OPENED, WATCHED = [], []


def watch(event, arguments):
    if WATCHED and event == "open" and str(arguments[0]).startswith(WATCHED[0]):
        OPENED.append(str(arguments[0]))


@pytest.fixture
def opened(tmp_path):
    """The files under the test's folder that are opened, by whatever, even in vain."""
    if not hasattr(watch, "on"):
        sys.addaudithook(watch)  # which no one can take away again
        watch.on = True
    OPENED.clear()
    WATCHED[:] = [str(tmp_path)]
    yield OPENED
    WATCHED.clear()


def test_of_6000_images_those_of_the_page_are_read(tmp_path, config, opened):
    table = [image(f"{i:04}.jpg", i) for i in range(6000)]
    for row in table[:12]:
        write_files(tmp_path, row, square(3), square(3))
    write_scores(tmp_path, [score(f"{i:04}.jpg", i, 0, 0) | {"iou": i / 6000} for i in range(6000)])
    manifest = manifest_of(tmp_path, table)
    opened.clear()
    widget = browse_panels(config, manifest)
    folder = str(tmp_path / "outputs" / "mine")
    assert opened.pop(0) == f"{folder}/per_image.csv"

    def files(numbers):
        return {
            str(path)
            for row in (table[i] for i in numbers)
            for path in (
                tmp_path / "data" / row["image_path"],
                tmp_path / "processed" / row["mask_path"],
                f"{folder}/masks/{row['image_id'].split('/')[-1]}.png",
            )
        }

    assert set(opened) == files(range(6))
    assert "page 1 of 1000, 6000 images" in controls(widget)["status"].value
    opened.clear()
    controls(widget)["Next"].click()
    assert set(opened) == files(range(6, 12))


def controls(widget):
    """A browser's widgets by their names."""
    _, choices, paging, sheet = widget.children
    named = {control.description: control for control in (*choices.children, *paging.children[:2])}
    return named | {"status": paging.children[2], "sheet": sheet}


@pytest.fixture
def browser(tmp_path, config, monkeypatch):
    """A browser of five test rows, one of them a taping area, and two of train; two rows a page."""
    calls = stub(config, monkeypatch)
    rows = [*FOUR, image("a.jpg", 4, "taping_area"), image("t.jpg", 4, split="train"), image("u.jpg", split="train")]
    for row in rows:
        write_files(tmp_path, row, square(3), square(3))
    write_scores(tmp_path, [*SCORES, score("a.jpg", 3, 0, 1, label="taping_area", prompt="segment taping area")])

    def browse(**arguments):
        return browse_panels(config, manifest_of(tmp_path, rows), **{"page_size": 2, **arguments})

    browse.calls = calls
    return browse


def first_names(control):
    return [alt[0] for alt in Page(control["sheet"].value).alts[::3]]


def test_paging(browser):
    control = controls(browser())
    seen = []
    for _ in range(4):
        seen.append(
            (first_names(control), control["status"].value, control["Previous"].disabled, control["Next"].disabled)
        )
        control["Next"].click()
    assert seen == [
        (["b", "a"], "page 1 of 3, 4 images in 5 rows", True, False),
        (["a", "c"], "page 2 of 3, 4 images in 5 rows", False, False),
        (["d"], "page 3 of 3, 4 images in 5 rows", False, True),
        (["d"], "page 3 of 3, 4 images in 5 rows", False, True),  # there is none after it
    ]
    control["Previous"].click()
    assert first_names(control) == ["a", "c"]


def test_choosing_begins_at_the_first_page(browser, monkeypatch):
    control = controls(browser())
    control["Next"].click()
    drawn = []
    monkeypatch.setattr(sheet_browser, "order_rows", lambda *given: drawn.append(given[1]) or order_rows(*given))
    working = []
    control["sheet"].observe(lambda _: working.append(control["status"].value), "value")
    control["Order"].value = "best"
    assert first_names(control) == ["d", "c"]
    assert working == [WORKING]
    control["Label"].value = "taping_area"
    assert (first_names(control), control["status"].value) == (["a"], "page 1 of 1, 1 image")
    assert control["Next"].disabled
    assert not browser.calls["loaded"]
    control["Split"].value = "train"
    assert "No image of this label in this split." in control["sheet"].value
    assert control["status"].value == "page 1 of 1, 0 images"
    control["Label"].value = ""
    assert [value for _, value in control["Order"].options] == ["photograph", "name"]
    assert first_names(control) == ["t", "u"] and browser.calls["loaded"] == 1
    # Each once, though the orders changed with the split.
    assert drawn == ["best", "best", "photograph", "photograph"]
    control["Split"].value = "test"
    assert "worst" in dict(map(reversed, control["Order"].options))


def test_each_control_has_a_name(browser):
    assert list(controls(browser())) == ["Label", "Split", "Order", "Previous", "Next", "status", "sheet"]


def test_an_error_while_it_is_used_is_shown(browser, monkeypatch):
    control = controls(browser())
    monkeypatch.setattr(sheet_browser, "order_rows", lambda *_: 1 / 0)
    control["Next"].click()
    assert "ZeroDivisionError: division by zero" in Page(control["sheet"].value).text
    assert control["status"].value == "This page could not be drawn."
    monkeypatch.undo()
    control["Next"].click()
    assert first_names(control) == ["a", "c"]


def test_the_first_page_stays_in_the_saved_notebook(browser):
    widget = browser(order="name", label="crack")
    copy = widget._static["text/html"]
    assert controls(widget)["sheet"].value in copy
    assert "by file name, page 1 of 2, 4 images. Run this cell" in Page(copy).text
    assert widget._static["text/plain"] == "run mine: by file name, page 1 of 2, 4 images"
    controls(widget)["Next"].click()
    assert widget._static["text/html"] == copy


def test_arguments_that_cannot_be(browser):
    for arguments, message in [
        ({"page_size": 0}, "page_size is 0"),
        ({"order": "wurst"}, "unknown order 'wurst'; did you mean 'worst'"),
        ({"order": "difference"}, "'difference'; no image has what it goes by"),
        ({"label": "krack"}, "unknown label 'krack'; did you mean 'crack'"),
    ]:
        with pytest.raises(ValueError, match=message):
            browser(**arguments)


def test_a_run_without_test_images_can_be_looked_at(tmp_path, config, monkeypatch):
    stub(config, monkeypatch)
    row = image("t.jpg", 4, split="train")
    write_files(tmp_path, row, square(2))
    write_scores(tmp_path, pd.DataFrame(SCORES)[:0])
    control = controls(browse_panels(config, manifest_of(tmp_path, [row])))
    assert control["Split"].value == "train" and first_names(control) == ["t"]
