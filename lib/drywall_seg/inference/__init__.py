"""A mask for a photo."""
