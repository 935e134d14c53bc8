"""Many ways to ask: sentences made of small word lists, some of which training never sees."""

import numpy as np

from drywall_seg.prompts import OWN_LABELS, PROMPTS, is_own, split_phrases

ORDERS = split_phrases("""
    segment {}, segment the {}, find {}, find the {}, show {}, show me the {}, mark {}, mark every {}, mask of the {},
    highlight {}, detect {}, outline the {}, trace {}, select the {}, where is the {}, where are the {}, is there a {},
    a photo of {}, please segment {} in this photo, {}, {} on the wall, the {}, any {}, all {}, could you draw {},
    i need the {}, give an outline of {}, a mask for every {}, look for {}, extract {}, what about the {}, point out {},
    display {} here, let me see the {}
""")

NOUNS = {
    "crack": split_phrases("""
        crack, cracks, wall crack, wall cracks, crack in the wall, cracks in the plaster, hairline crack, plaster crack,
        surface crack, cracked plaster, cracked wall, cracking, fracture, fissure, split, split in the plaster,
        wall damage, broken plaster
    """),
    "taping_area": split_phrases("""
        taping area, taping areas, area to be taped, area to tape, drywall seam, drywall seams, drywall joint,
        drywall joints, joint tape, joint area, seam area, seam between boards, board joint, joint between the boards,
        plasterboard joint, tape strip, taped seam, joint compound strip
    """),
    "joint_line": split_phrases("""
        joint line, joint lines, seam line, seam lines, joint centre line, centre line of the joint,
        center line of the seam, line of the joint, line between the boards, board edge line, gap line,
        thin line of the seam, line where the boards meet, seam lines between the boards, lines of the joints,
        joint centre lines, drywall joint line, drywall seam line, thin joint line, board joint line
    """),
} | {own.name: own.words for own in OWN_LABELS}

ABSENT_NOUNS = split_phrases("""
    dog, cat, horse, bird, person, child, hand, face, bicycle, car, truck, bus, train, boat, airplane, tree, grass,
    flower, leaf, river, mountain, cloud, sun, moon, radiator, chair, table, sofa, bed, lamp, shelf, curtain, carpet,
    mirror, bottle, cup, plate, fork, knife, bowl, apple, banana, bread, pizza, phone, laptop, keyboard, television,
    book, pencil, scissors, backpack, umbrella, shoe, hat, shirt, clock, window, ladder, hammer, screwdriver, drill,
    saw, bucket, brush, helmet, glove, sink, toilet, bathtub, oven, fridge, paint bucket, light switch, power outlet,
    door handle, water pipe, electric cable, ceiling lamp, floor tile, wooden door, picture frame, mould, rust,
    water stain
""")

# Kept from training, to measure on: words, and ways to ask.
HELD_OUT_ORDERS = ("can you locate {}", "identify {}", "give me the mask for {}")
HELD_OUT_NOUNS = {
    "crack": ("cracks in the wall", "fractures", "wall fissure", "hairline cracks", "crack line in the plaster"),
    "taping_area": ("drywall board seam", "joints to tape", "seams to be taped", "tape area", "plasterboard seams"),
    "joint_line": ("joint lines between boards", "centre line of the seam", "line of the seam"),
}
HELD_OUT_ABSENT = split_phrases("""
    elephant, motorcycle, guitar, spoon, pillow, candle, fence, statue, sheep, wheel, basket, trousers, kettle, printer,
    staircase, fire extinguisher, smoke detector, toolbox, vacuum cleaner, garden hose
""")
ABSENT_NOUNS = tuple(noun for noun in ABSENT_NOUNS if not is_own(noun))
HELD_OUT_ABSENT = tuple(noun for noun in HELD_OUT_ABSENT if not is_own(noun))


def draw_sentence(label: str, rng: np.random.Generator) -> str:
    """Draws a sentence that asks for a label: a third of the time one of `PROMPTS`, else made of order and noun."""
    if rng.random() < 1 / 3:
        return str(rng.choice(PROMPTS[label]))
    return _sentence(str(rng.choice(ORDERS)), str(rng.choice(NOUNS[label])), rng)


def draw_absent(rng: np.random.Generator) -> str:
    """Draws a sentence that asks for a thing that is on no wall."""
    return _sentence(str(rng.choice(ORDERS)), str(rng.choice(ABSENT_NOUNS)), rng)


def held_out_sentences(label: str) -> list[str]:
    """Returns the sentences for a label that training never sees: new words, and new ways to ask for known ones."""
    known = [order.format(noun) for order in HELD_OUT_ORDERS for noun in NOUNS[label][:3]]
    return known + [f"segment {noun}" for noun in HELD_OUT_NOUNS.get(label, ())]


def held_out_absent() -> list[str]:
    """Returns sentences for absent things that training never sees."""
    return [f"segment {noun}" for noun in HELD_OUT_ABSENT]


def _sentence(order: str, noun: str, rng: np.random.Generator) -> str:
    """Fills in, and writes it as people do: mostly plain, sometimes with a capital, shouted or with a mark."""
    text = order.format(noun)
    written = (text, text, text, text.capitalize(), text.upper(), text.title())[rng.integers(6)]
    return written + ("", "", "", ".", "?", "!")[rng.integers(6)]
