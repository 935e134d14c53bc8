"""The threshold slider where a kernel is: Voila and JupyterLab, driven by mouse, keyboard and touch."""

from statistics import median

import pytest

from . import pages, sample_views, timing

pytestmark = pytest.mark.slow

HANDLE = ".noUi-handle, .ui-slider-handle"  # ipywidgets 8, 7


@pytest.fixture(params=["voila", "jupyterlab"])
def open_slider(request, sample_root, tmp_path, write_notebook):
    """The slider's page, at a size, when its picture is there."""

    def open_(viewport="wide"):
        source = sample_views.cell(sample_root, tmp_path / "processed", sample_views.SLIDER)
        opener = request.getfixturevalue({"voila": "open_voila", "jupyterlab": "open_lab"}[request.param])
        opened = opener(write_notebook("slider", source), "img.widget-image", viewport)
        opened.wait_for_function("() => document.querySelector('img.widget-image').naturalWidth > 0")
        return opened

    open_.where = request.param
    return open_


def said(page):
    return page.locator(".widget-html-content").all_text_contents()


def figures_of(page):
    return page.locator(".widget-html-content table b").all_text_contents()


def changed(page, before):
    page.wait_for_function(
        "old => [...document.querySelectorAll('.widget-html-content table b')].map(b => b.textContent).join() != old",
        arg=",".join(before),
    )
    return figures_of(page)


def test_it_is_live(open_slider, figures, keep_picture):
    page = open_slider()
    handle = page.locator(HANDLE).first
    before = figures_of(page)
    found = timing.spans(page, lambda i: handle.press("ArrowLeft"), n=30, target="img.widget-image")
    figures(f"slider, {open_slider.where}: {median(found):.0f} ms from key to picture, median of {len(found)}")
    after = changed(page, before)
    assert int(after[4]) > int(before[4])  # at a lower threshold more is found
    keep_picture(page, f"slider {open_slider.where}")
    pages.axe(page, ".widget-vbox")
    pages.quiet(page)


def test_mouse_and_what_the_switches_do(open_slider):
    page = open_slider()
    handle = page.locator(HANDLE).first
    before = figures_of(page)
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 60, box["y"] + box["height"] / 2, steps=6)
    page.mouse.up()
    changed(page, before)
    page.wait_for_timeout(500)  # the last steps of the drag are still being answered
    dragged = figures_of(page)
    page.get_by_text("drop small parts").click()
    page.wait_for_function("() => document.body.textContent.includes('Of the delivered mask')")
    page.get_by_text("drop small parts").click()
    page.wait_for_function("() => document.body.textContent.includes('Of the raw mask')")
    assert figures_of(page) == dragged
    page.get_by_role("button", name="Next photo").click()
    changed(page, dragged)
    assert page.get_by_role("button", name="Next photo").is_disabled()  # of two photos
    page.locator(".widget-dropdown select").first.select_option("segment taping area")
    page.wait_for_function("() => document.body.textContent.includes('threshold for taping_area')")
    pages.quiet(page)


def test_keyboard_alone(open_slider):
    page = open_slider()
    before = figures_of(page)
    page.locator(".widget-dropdown select").first.focus()
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.matches('{HANDLE}')"):
            break
    else:
        pytest.fail("the slider is not reached by the keyboard")
    page.keyboard.press("ArrowLeft")
    changed(page, before)


def test_touch(open_slider, keep_picture):
    page = open_slider("phone")
    handle = page.locator(HANDLE).first
    handle.scroll_into_view_if_needed()
    before = figures_of(page)
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    for kind, moved in (("touchStart", 0), *(("touchMove", 5 * step) for step in range(1, 8))):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x - moved, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    if open_slider.where == "voila":  # JupyterLab is not for phones
        keep_picture(page, "slider voila phone")
    changed(page, before)


def test_the_static_picture_is_hidden_where_the_slider_lives(open_slider):
    page = open_slider()
    assert page.locator("[class^=dws-static] img").count() == 1
    assert not page.locator("[class^=dws-static] img").is_visible()


def test_the_picture_stays_in_an_executed_copy(executed_html, write_notebook, sample_root, tmp_path, page):
    source = sample_views.cell(sample_root, tmp_path / "processed", sample_views.SLIDER)
    opened = page()
    opened.goto(executed_html(write_notebook("slider", source)).as_uri())
    assert opened.locator("[class^=dws-static] img").is_visible()
    pages.quiet(opened)
