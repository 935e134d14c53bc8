import numpy as np
import pandas as pd
import pytest

from drywall_seg.inference.monitor import FIELDS, HIGH, LOW, make_reference
from drywall_seg.prompts import LABELS
from drywall_seg.visualization.monitoring import BINS, MOST_DOTS, in_parts, plot_monitoring, running_median

START = pd.Timestamp("2026-10-03 07:12", tz="UTC")


def drawn(n, labels=LABELS[:1], days=5.0, seed=0):
    rng = np.random.default_rng(seed)
    times = START + pd.to_timedelta(np.sort(rng.random(n)) * days, unit="D")
    return pd.concat(
        [pd.DataFrame({"time": times, "label": label, **{f: rng.beta(4, 4, n) for f in FIELDS}}) for label in labels]
    )


REFERENCE = make_reference(drawn(100, LABELS, seed=1))


def named(axis):
    """What is drawn in a panel, by its name in the legend."""
    handles, names = axis.get_legend_handles_labels()
    return dict(zip(names, handles, strict=True))


@pytest.mark.parametrize("n", [1, 3, MOST_DOTS, MOST_DOTS + 1, 100_000])
def test_any_number_of_entries_is_drawn_with_few_points(n):
    figure = plot_monitoring(drawn(n), REFERENCE)
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "presence",
        "area, share of the photo",
        "doubt",
        "brightness",
        "sharpness",
        "megapixels",
    ]
    assert figure.axes[0].get_ylabel() == f"crack, n = {n:,}"
    median = named(figure.axes[0])["running median of the log"]
    assert len(median.get_xdata()) == (n if n <= MOST_DOTS else BINS)
    assert ("logged" in named(figure.axes[0])) == (n <= MOST_DOTS)
    assert ("5 to 95 % of the log" in named(figure.axes[0])) == (n > MOST_DOTS)
    assert len(figure.legends[0].get_texts()) == 4
    figure.draw_without_rendering()


@pytest.mark.parametrize("labels", [LABELS[1:], LABELS])
def test_a_row_for_each_label(labels):
    figure = plot_monitoring(drawn(20, labels), REFERENCE)
    assert len(figure.axes) == len(labels) * len(FIELDS)
    starts = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    assert starts == [f"{label}, n = 20" for label in labels]


def test_the_entries_and_the_reference_lie_where_their_values_are():
    log = drawn(30)
    figure = plot_monitoring(log, REFERENCE)
    for field, axis in zip(FIELDS, figure.axes, strict=True):
        found = named(axis)
        assert list(found["logged"].get_ydata()) == list(log[field])
        box = found["5 to 95 % of the validation photos"].get_extents().transformed(axis.transData.inverted())
        quantiles = REFERENCE["crack"][field]
        assert (box.y0, box.y1) == (pytest.approx(quantiles[LOW]), pytest.approx(quantiles[HIGH]))
        assert set(found["their median"].get_ydata()) == {quantiles[10]}
        low, high = axis.get_ylim()
        assert low <= log[field].min() and log[field].max() <= high


def test_entries_in_any_order_of_time_give_the_same_picture():
    log = drawn(50)
    first, second = (plot_monitoring(table, {}) for table in (log, log.sample(frac=1, random_state=0)))
    for one, other in zip(first.axes, second.axes, strict=True):
        assert list(named(one)["logged"].get_xdata()) == list(named(other)["logged"].get_xdata())
        assert list(named(one)["logged"].get_ydata()) == list(named(other)["logged"].get_ydata())


def test_warnings_stand_over_their_panels():
    log = drawn(40, LABELS).assign(brightness=0.05, megapixels=12, sharpness=[0.001, 2] * 60)
    figure = plot_monitoring(log, REFERENCE)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[3] == "brightness\ntoo dark"
    assert titles[5] == "megapixels\nunlike training: higher"
    assert titles[4] == "sharpness\ntoo blurred\nunlike training: higher"
    assert "\n" not in titles[0]
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert axis._left_title.get_window_extent().x1 <= axis.get_window_extent().x1


def test_without_a_reference_there_is_none_in_the_picture():
    figure = plot_monitoring(drawn(40).assign(brightness=0.05), {})
    assert set(named(figure.axes[3])) == {"logged", "running median of the log"}
    assert figure.axes[3].get_title(loc="left") == "brightness"


def test_an_empty_log_says_so():
    (text,) = plot_monitoring(drawn(0), REFERENCE).texts
    assert text.get_text() == "Nothing to show: no entry in the log."


def test_a_black_photo_stays_on_the_paper():
    figure = plot_monitoring(drawn(5).assign(sharpness=[0, 0, 0.1, 0.2, 3]), REFERENCE)
    low, high = figure.axes[4].get_ylim()
    assert 0 < low < 0.1 and 3 <= high
    figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("days", "text"), [(0.01, "2026-10-03 07:12 to 2026-10-03 07:2"), (400, "2026-10-03 07:12 to 2027-")]
)
def test_the_span_of_time_is_written(days, text):
    log = pd.concat([drawn(20, days=days), drawn(1).assign(time=START)])
    figure = plot_monitoring(log, {})
    assert figure.get_supxlabel().startswith(f"time (UTC), {text}")
    figure.draw_without_rendering()


def test_a_running_median_is_of_what_lies_around():
    assert list(running_median(np.array([0, 0, 9, 0, 0, 5, 5, 5.0]))) == [0, 0, 0, 0, 5, 5, 5, 5]
    assert list(running_median(np.array([3.0]))) == [3]


def test_parts_are_of_equal_number_and_none_is_lost():
    values = np.repeat(np.arange(BINS), 7).astype(float)
    times = pd.Series(START + pd.to_timedelta(np.arange(len(values)), unit="s"), index=range(5, 5 + len(values)))
    middles, low, median, high = in_parts(times, values)
    assert list(low) == list(median) == list(high) == list(range(BINS))
    assert list((middles - START).dt.total_seconds()) == [7 * part + 3 for part in range(BINS)]
    assert [len(part) for part in in_parts(times[:700], np.ones(700))] == [BINS] * 4


@pytest.mark.parametrize(
    "days", [0, 0.0007, 0.005, 0.05, 0.15, 0.3, 1.1, 1.5, 1.9, 2.5, 2.9, 3.9, 6, 25, 30, 45, 90, 299, 500, 2000]
)
@pytest.mark.filterwarnings("error:AutoDateLocator")
def test_points_of_time_are_told_apart_and_do_not_touch(days):
    log = drawn(2).assign(time=[START, START + pd.Timedelta(days=days)])
    figure = plot_monitoring(pd.concat([log, log.assign(label="joint_line")]), {})
    figure.draw_without_rendering()
    axis = figure.axes[-1]
    low, high = axis.get_xlim()
    shown = [t for t, place in zip(axis.get_xticklabels(), axis.get_xticks(), strict=True) if low <= place <= high]
    assert 1 < len({text.get_text() for text in shown}) == len(shown)
    boxes = [text.get_window_extent() for text in shown]
    assert all(one.x1 < other.x0 for one, other in zip(boxes[:-1], boxes[1:], strict=True))
