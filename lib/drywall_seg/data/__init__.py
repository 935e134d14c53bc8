"""Exports in, manifest and training samples out."""
