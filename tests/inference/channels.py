"""A predictor whose answers are drawn: the red of a photo is the probability of a crack, and so on."""

from types import SimpleNamespace

import numpy as np

from drywall_seg.inference.predict import Prediction
from drywall_seg.inference.scores import count_around, doubt_of, first_level

PROMPTS = ["segment crack", "segment taping area", "trace joint line"]
LABELS = dict(zip(PROMPTS, ("crack", "taping_area", "joint_line"), strict=True))
SURE, VAGUE = 255, 140
"""Levels that a threshold of 0.6 keeps and loses; the one in use is 0.5."""


class Channels:
    """Answers with the channels of the photo; with `blind`, of a mirrored photo only its left part."""

    presence_cut, chosen, thresholds, postprocessing, tile = 0.0, "by hand", {}, {}, None
    backend = SimpleNamespace(model_hash="0123456789abcdef" * 2, image_size=0)

    def __init__(self, blind=None):
        self.blind, self.calls = blind, 0

    def label_for(self, prompt):
        return LABELS[prompt]

    def threshold_for(self, prompt):
        return 0.5

    def predict(self, photo, prompts, threshold=None, with_probs=True):
        self.calls += 1
        answers = []
        for prompt in prompts:
            levels = photo[..., PROMPTS.index(prompt)].copy()
            if self.blind and self.calls % 2 == 0:
                levels[:, self.blind :] = 0
            doubt = doubt_of(count_around(levels, 0.5), 1.0, 0.0)
            mask = (levels >= first_level(0.5)) * np.uint8(255)
            answers.append(Prediction(prompt, np.float32(levels / 255) if with_probs else None, mask, 0.5, 1.0, doubt))
        return answers


def photo(*bars, size_hw=(200, 300)):
    """Draws bars: (channel, level, rows, columns), the last two as slices."""
    image = np.zeros((*size_hw, 3), np.uint8)
    for channel, level, rows, columns in bars:
        image[rows, columns, channel] = level
    return image
