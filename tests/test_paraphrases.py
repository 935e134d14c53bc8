import numpy as np
import pytest

from drywall_seg.paraphrases import (
    ABSENT_NOUNS,
    HELD_OUT_ABSENT,
    HELD_OUT_NOUNS,
    HELD_OUT_ORDERS,
    NOUNS,
    ORDERS,
    draw_absent,
    draw_sentence,
    held_out_absent,
    held_out_sentences,
)
from drywall_seg.prompts import LABELS, PROMPTS, slug


def drawn(draw, n=3000):
    return {slug(draw(np.random.default_rng(i))) for i in range(n)}


@pytest.mark.parametrize("label", LABELS)
def test_training_never_draws_what_is_held_out(label):
    seen = drawn(lambda rng: draw_sentence(label, rng))
    assert len(seen) > 100
    assert {slug(prompt) for prompt in PROMPTS[label]} <= seen
    held_out = {slug(text) for text in held_out_sentences(label)}
    assert len(held_out) >= 10
    assert not held_out & seen
    assert not {slug(noun) for noun in HELD_OUT_NOUNS[label]} & {slug(noun) for noun in NOUNS[label]}


def test_absent_things_are_held_out_too_and_are_no_label():
    seen = drawn(draw_absent)
    assert not {slug(text) for text in held_out_absent()} & seen
    assert not set(HELD_OUT_ABSENT) & set(ABSENT_NOUNS)
    words = {word for nouns in [*NOUNS.values(), *HELD_OUT_NOUNS.values()] for noun in nouns for word in noun.split()}
    specific = words - {
        "the",
        "in",
        "of",
        "to",
        "be",
        "between",
        "area",
        "wall",
        "line",
        "lines",
        "board",
        "boards",
        "edge",
    }
    for noun in (*ABSENT_NOUNS, *HELD_OUT_ABSENT):
        assert not specific & set(noun.split()), noun


def test_no_noun_stands_for_two_labels():
    owners = [slug(noun) for label in LABELS for noun in (*NOUNS[label], *HELD_OUT_NOUNS[label])]
    assert len(owners) == len(set(owners))
    assert not set(HELD_OUT_ORDERS) & set(ORDERS)


def test_sentences_come_as_people_write_them():
    texts = [draw_sentence("crack", np.random.default_rng(i)) for i in range(300)]
    assert any(text.isupper() for text in texts)
    assert any(text.endswith("?") for text in texts)
    assert any(text == text.lower() for text in texts)
    assert texts[7] == draw_sentence("crack", np.random.default_rng(7))
