import time

import numpy as np
import pandas as pd
import pytest

from drywall_seg.images import read_mask
from drywall_seg.runs import (
    environment,
    one_ahead,
    read_json,
    run_folder,
    whole_file,
    whole_folder,
    write_csv,
    write_json,
    write_mask,
)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with whole_file(target) as partial:
        partial.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    with pytest.raises(RuntimeError), whole_file(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "new"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "checkpoint"
    for text in ("first", "second"):
        with whole_folder(target) as partial:
            (partial / text).write_text(text)
        assert [p.name for p in target.iterdir()] == [text]
    with pytest.raises(RuntimeError), whole_folder(target) as partial:
        (partial / "third").write_text("half")
        raise RuntimeError
    assert [p.name for p in target.iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_round_trips(tmp_path):
    write_json(tmp_path / "a.json", {"text": "Riß", "n": [1, None]})
    assert read_json(tmp_path / "a.json") == {"text": "Riß", "n": [1, None]}
    write_csv(tmp_path / "a.csv", pd.DataFrame({"x": [1, 2]}))
    assert pd.read_csv(tmp_path / "a.csv").x.tolist() == [1, 2]
    mask = np.uint8([[0, 255, 0]])
    write_mask(tmp_path / "a.png", mask)
    assert np.array_equal(read_mask(tmp_path / "a.png"), mask)


def test_broken_json_is_named(tmp_path):
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match=r"b\.json"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b", "x" * 101, "a\n"])
def test_a_run_name_is_a_plain_folder_name(name):
    with pytest.raises(ValueError, match="run_name"):
        run_folder("outputs", name)


def test_a_good_run_name(tmp_path):
    assert run_folder(tmp_path, "first-run_2.1") == tmp_path / "first-run_2.1"


def test_environment_says_what_a_result_depends_on():
    about = environment("cpu", "abc")
    assert about["device"] == "cpu"
    assert about["data_fingerprint"] == "abc"
    assert about["packages"]["torch"]


def test_one_item_is_worked_on_ahead_and_no_more():
    begun = []
    seen = []
    for item, result in one_ahead(lambda n: begun.append(n) or n * n, range(5)):
        while len(begun) < min(item + 2, 5):  # the next is begun while this one is used
            time.sleep(0.001)
        seen.append((item, result))
        assert len(begun) == min(item + 2, 5)
    assert seen == [(n, n * n) for n in range(5)] and not list(one_ahead(str, []))


def test_what_goes_wrong_ahead_is_raised_in_its_turn():
    def divide(n):
        return 1 / n

    pairs = one_ahead(divide, [2, 1, 0])
    assert [next(pairs), next(pairs)] == [(2, 0.5), (1, 1.0)]
    with pytest.raises(ZeroDivisionError):
        next(pairs)
