import pytest
from hypothesis import given
from hypothesis import strategies as st

from drywall_seg.prompts import (
    ABSENT_LABELS,
    ABSENT_THINGS,
    LABELS,
    PROMPTS,
    canonical_prompt,
    hash_text,
    slug,
    slugs,
)


def test_the_canonical_sentences_are_the_promised_ones():
    assert [canonical_prompt(label) for label in LABELS] == [
        "segment crack",
        "segment taping area",
        "trace joint line",
    ]
    with pytest.raises(ValueError, match="crak"):
        canonical_prompt("crak")


def test_a_joint_line_is_never_absent_where_a_taping_area_is():
    assert set(ABSENT_LABELS) == set(LABELS)
    for label, absent in ABSENT_LABELS.items():
        assert label not in absent
        assert {label, *absent} & {"crack"}  # every pair of known absence has the crack in it


def test_no_absent_thing_names_what_a_label_asks_for():
    words = {word for prompts in PROMPTS.values() for prompt in prompts for word in slug(prompt).split("_")}
    nouns = words - {"segment", "trace"}
    assert not [thing for thing in ABSENT_THINGS if nouns & set(slug(thing).split("_"))]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("segment crack", "segment_crack"),
        ("  Segment   CRACK!! ", "segment_crack"),
        ("segment joint/tape", "segment_joint_tape"),
        ("../../etc/passwd", "etc_passwd"),
        ("a \"quoted\" 'thing'.png", "a_quoted_thing_png"),
        ("Riß finden", "riss_finden"),
        ("ひび割れ", "ひび割れ"),
    ],
)
def test_slug(prompt, expected):
    assert slug(prompt) == expected


@given(st.text())
def test_a_slug_is_a_harmless_short_file_name_or_an_error(prompt):
    try:
        name = slug(prompt)
    except ValueError:
        assert not any(character.isalnum() for character in prompt)
        return
    assert 0 < len(name) <= 60
    assert not set(name) & set("/\\.:'\"<>|?*\0\n ")


def test_long_slugs_stay_apart():
    first, second = ("segment the crack " * 9 + end for end in "ab")
    assert slug(first) != slug(second)


@pytest.mark.parametrize(
    "prompts", [["segment joint/tape", "segment joint tape"], ["segment crack", "Segment crack!"], ["a", "a"], []]
)
def test_colliding_or_missing_prompts_are_refused(prompts):
    with pytest.raises(ValueError, match="saved as|no prompt"):
        slugs(prompts)


def test_slugs_keep_the_order():
    assert slugs(["segment taping area", "segment crack"]) == ["segment_taping_area", "segment_crack"]


def test_hashes_are_stable_and_blind_to_case_and_punctuation():
    assert hash_text("Segment  CRACK?", 4096) == hash_text("segment crack", 4096)
    assert hash_text("crack", 4096)[:3] == [1243, 3474, 1745]  # crc32 of "<crack>", "<cr" and "cra", modulo 4096


def test_function_words_do_not_matter_unless_there_is_nothing_else():
    assert hash_text("can you find the crack for me?", 4096) == hash_text("find crack", 4096)
    assert hash_text("is it?", 4096) != hash_text("the", 4096)


def test_an_inflected_word_shares_most_of_its_pieces():
    crack, cracks, dog = (set(hash_text(word, 4096)) for word in ("crack", "cracks", "dog"))
    assert len(crack & cracks) >= len(crack) / 2
    assert len(crack & dog) <= 1  # a chance collision in 4,096 buckets
