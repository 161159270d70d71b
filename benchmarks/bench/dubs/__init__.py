"""Whole dubs, stage by stage: `dubstream bench dub`."""
