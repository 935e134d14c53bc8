"""Scores what inference delivers."""
