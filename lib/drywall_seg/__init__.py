"""Prompted segmentation of drywall photographs: a photo and a sentence in, a mask out."""

__version__ = "0.1.0"
