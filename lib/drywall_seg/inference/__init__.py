"""A mask for a photo: `Predictor`. Importing this imports neither torch nor transformers."""

from drywall_seg.inference.predict import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
