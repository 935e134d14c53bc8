import pytest

from drywall_seg.inference.review import LOOK, reasons, review_score

NAN = float("nan")


@pytest.mark.parametrize(
    ("doubt", "disagreement", "unmeasurable", "score"),
    [
        (0.0, 0.0, False, 0.0),
        (0.1, NAN, False, 0.1),
        (0.1, 0.5, False, 0.25),
        (0.3, 0.5, False, 0.3),
        (0.1, 0.2, True, 0.25),
        (1.0, 1.0, True, 1.0),
        (0.0, 1.0, False, 0.5),
    ],
)
def test_the_score_is_the_largest_reason(doubt, disagreement, unmeasurable, score):
    assert review_score(doubt, disagreement, unmeasurable) == pytest.approx(score)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, None),
        ({"doubt": 0.3}, "a: 30% of the marked area hangs on the model's threshold"),
        ({"doubt": 1.0}, "a: the model is not sure that there is any"),
        ({"doubt": 1.0, "n": 0}, "a: the model is not sure that there is any; nothing is marked"),
        ({"disagreement": 0.4}, "a: 40% is marked otherwise in the mirrored photo"),
        ({"unmeasurable": True}, "a: most of it is under 3 pixels wide or too short for a width: take a closer photo"),
    ],
)
def test_every_reason_has_its_words_and_no_score_is_without(row, words):
    row = {"n": 2, "doubt": 0.05, "disagreement": NAN, "unmeasurable": False} | row
    assert reasons("a", row) == ([words] if words else [])
    score = review_score(row["doubt"], row["disagreement"], row["unmeasurable"])
    assert (score >= LOOK) == bool(words)


def test_several_reasons_are_one_sentence():
    (words,) = reasons("a", {"n": 1, "doubt": 0.5, "disagreement": 0.9, "unmeasurable": True})
    assert words.count("a: ") == 1 and words.count(", ") == 2
