"""The 262 numbers of a frame's 3D face, and the driving window D-Net reads from them.

Layout of a frame (upstream behaviour): identity 80, expression 64, texture 80, angle 3, lighting 27,
translation 3 from the 3DMM network, then picture width, height, scale, tx, ty of its alignment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.errors import CheckpointError, InternalError

IDENTITY = slice(0, 80)
EXPRESSION = slice(80, 144)
TEXTURE = slice(144, 224)
ANGLE = slice(224, 227)
LIGHTING = slice(227, 254)
TRANSLATION = slice(254, 257)
ALIGNMENT = slice(259, 262)  # scale, tx, ty; 257 and 258 are the picture's size
RECON_SIZE = 257
FRAME_SIZE = 262

# A row of the driving signal.
ROW_SIZE = 73
ROW_EXPRESSION = slice(0, 64)
ROW_ANGLE = slice(64, 67)
ROW_TRANSLATION = slice(67, 70)
ROW_ALIGNMENT = slice(70, 73)

# 26, not 27: D-Net takes any length and averages, so a longer window runs and is quietly different.
WINDOW_SIZE = 26
WINDOW_BEFORE = 13  # frames before the driven one; 12 after

ExpressionName = Literal["center", "mouth"]

_LARGEST_TEMPLATE_FILE = 16 << 20  # bytes
_LARGEST_TEMPLATE = 1 << 20  # numbers


def frame_coefficients(recon: NDArray[np.float32], trans_params: NDArray[np.float32]) -> NDArray[np.float32]:
    """Join the 3DMM network's output and the alignment it was made with.

    Args:
        recon: float32 (n, 257).
        trans_params: float32 (n, 5), from `align_for_recon`.

    Returns:
        float32 (n, 262).

    Raises:
        InternalError: other shapes, or numbers that are not finite.
    """
    if recon.ndim != 2 or recon.shape[1] != RECON_SIZE or trans_params.shape != (len(recon), 5):
        raise InternalError(
            f"coefficients {recon.shape} and alignment {trans_params.shape}; expected (n, 257) and (n, 5)"
        )
    joined = np.concatenate([recon, trans_params], axis=1).astype(np.float32)
    if not np.isfinite(joined).all():
        frames = np.flatnonzero(~np.isfinite(joined).all(axis=1)).tolist()
        raise InternalError(f"the 3DMM network returned NaN or infinity for items {frames[:8]} of its batch")
    return joined


def driving_rows(
    coefficients: NDArray[np.float32], expression: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The part of the coefficients that drives D-Net.

    Args:
        coefficients: float32 (n, 262).
        expression: float32 (64,) that replaces every frame's expression, which is what stabilises the lips;
            None keeps the frames' own.

    Returns:
        float32 (n, 73): expression 64, angle 3, translation 3, scale, tx, ty.
    """
    if coefficients.ndim != 2 or coefficients.shape[1] != FRAME_SIZE:
        raise InternalError(f"coefficients have shape {coefficients.shape}; expected (n, {FRAME_SIZE})")
    parts = (EXPRESSION, ANGLE, TRANSLATION, ALIGNMENT)
    rows = np.concatenate([coefficients[:, part] for part in parts], axis=1).astype(np.float32)
    if expression is not None:
        rows[:, ROW_EXPRESSION] = expression
    return rows


def window_indices(count: int, k: int) -> NDArray[np.int64]:
    """Frames of the driving window of frame k: k-13 to k+12, clamped to the clip; int64 (26,)."""
    if not 0 <= k < count:
        raise InternalError(f"driving window of frame {k}; expected 0 to {count - 1}")
    return np.clip(np.arange(k - WINDOW_BEFORE, k - WINDOW_BEFORE + WINDOW_SIZE), 0, count - 1)


def driving_window(rows: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """D-Net's driving signal for frame k.

    Args:
        rows: float32 (n, 73), from `driving_rows`, the whole clip.
        k: frame, 0 to n-1.

    Returns:
        float32 (73, 26), own memory.
    """
    return np.ascontiguousarray(rows[window_indices(len(rows), k)].T)


def expression_template(path: Path | None = None, name: ExpressionName = "center") -> NDArray[np.float32]:
    """The expression all frames are given before their lips are replaced.

    Args:
        path: the public `expression.mat`; None gives zeros, the mean face, which the caller should say.
        name: "center" (neutral) or "mouth" (smile).

    Returns:
        float32 (64,).

    Raises:
        CheckpointError: a file that cannot be read, is oversized, or lacks a numeric 2-D array of 64 columns
            or more under `expression_<name>`.
    """
    if path is None:
        return np.zeros(64, dtype=np.float32)
    key = f"expression_{name}"
    row = _first_row(path, key)
    if row.size < 64 or not np.isfinite(row[:64]).all():
        raise _refused(path, f"{key} has a first row of {row.size} numbers", "64 or more, all finite")
    return row[:64].astype(np.float32)


def _first_row(path: Path, key: str) -> NDArray[Any]:
    # The directory is read first: an array's size is known before a byte of it is unpacked.
    from scipy.io import loadmat, whosmat

    try:
        size = path.stat().st_size
        if size > _LARGEST_TEMPLATE_FILE:
            raise _refused(path, f"{size} bytes", f"{_LARGEST_TEMPLATE_FILE} bytes or fewer")
        shapes = {entry[0]: (entry[1], entry[2]) for entry in whosmat(path)}
        shape, kind = shapes.get(key, ((), "nothing"))
        if len(shape) != 2 or kind not in ("double", "single") or not 0 < np.prod(shape) <= _LARGEST_TEMPLATE:
            raise _refused(path, f"{key} is {kind} {shape}", "a numeric 2-D array")
        table = np.asarray(loadmat(path, variable_names=[key])[key])
    except CheckpointError:
        raise
    except Exception as error:  # the parser raises whatever a damaged file makes it meet
        raise _refused(path, f"{type(error).__name__}: {error}", "a MATLAB 5 file") from error
    if table.ndim != 2 or not np.issubdtype(table.dtype, np.floating):
        raise _refused(path, f"{key} is {table.dtype} {table.shape}", "a numeric 2-D array")
    return np.asarray(table[0])


def _refused(path: Path, received: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"expression template {path}: {received}; expected {expected}",
        hint="take expression.mat from the public release, or leave it out for the neutral face",
    )
