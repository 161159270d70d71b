"""Measurements of every stage, as rows."""
