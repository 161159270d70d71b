"""Measuring in turn, what the samples say, and how they are kept and compared; knows no network."""
