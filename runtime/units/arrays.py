"""Units that are arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.runtime.units.unit_folder import UnitFolder


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a unit that is being made."""
    # An open file: given a path, numpy would add its own ending to the temporary name.
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_arrays(units: UnitFolder, name: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a finished unit."""
    with np.load(units.path(name), allow_pickle=False) as arrays:
        return dict(arrays)
