"""How equal two results have to be, where several tests ask for the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def assert_same_but_for_ties(found: np.ndarray, expected: np.ndarray) -> None:
    """Pictures of a kernel and its reference: sums in another order may round the other way at a tie."""
    change = np.abs(found.astype(int) - expected)
    assert change.max() <= 1
    assert np.count_nonzero(change) <= 2 + found.size // 10_000


def equal(got: Tensor, want: Tensor, tolerance: float = 2e-6) -> None:
    """A rewrite and its original: differences in units of the expected values' largest magnitude."""
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= tolerance * max(1.0, float(want.abs().max()))
