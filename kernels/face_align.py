"""Between a frame and the 512 x 512 picture in which parser and restorers see a face.

    frame ──────────────────────── sampled ──┐
    synthesised minus source ───── sampled ──┴ added ── 3 x 512 x 512, RGB in [-1, 1]

Sampling is linear, so frame and change are sampled apart and added: nothing is pasted into a copy of the
frame. Five points decide the similarity (Umeyama 1991), by plain least squares: the median fit of the
original drops points in one fit of seven, and then jumps by pixels from one frame to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError
from dubstream.kernels.boxes import Box, box_size
from dubstream.kernels.checks import F32, U8, check_array, check_picture
from dubstream.kernels.workspace import Workspace, thread_workspace

ALIGNED = 512  # pixels, side of an aligned face

F64 = npt.NDArray[np.float64]

GFPGAN_POINTS: F64 = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
"""Where GFPGAN expects left eye, right eye, nose, left and right mouth corner (x, y)."""

GPEN_POINTS: F64 = np.array(
    [
        [202.04068428, 242.88396346],
        [309.43024555, 242.28998092],
        [256.07679966, 303.95917038],
        [211.95977493, 366.82819474],
        [300.89112491, 366.33630952],
    ]
)
"""The same for GPEN."""

BORDER = (135, 133, 132)
"""Blue, green and red outside the frame, the mean of GFPGAN's training pictures."""


def similarity(points: npt.ArrayLike, template: npt.ArrayLike) -> F64:
    """Rotation, scale and shift that bring points closest to a template, by least squares.

    Args:
        points: float (n, 2), x and y, n >= 2.
        template: float (n, 2).

    Returns:
        float64 (2, 3), from (x, y, 1) of the points to x, y of the template.

    Raises:
        InternalError: shapes that differ, or points that coincide or are not finite.
    """
    source, target = np.asarray(points, np.float64), np.asarray(template, np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise InternalError(f"points {source.shape} for a template {target.shape}, expected both (n, 2)")
    # In the complex plane a similarity is z -> a z + b.
    z, w = source @ (1, 1j), target @ (1, 1j)
    centred = z - z.mean()
    spread = float(np.vdot(centred, centred).real)
    if not np.isfinite(spread) or spread <= 0 or not np.isfinite(w).all():
        raise InternalError(f"points {source.tolist()} do not span a face")
    a = np.vdot(centred, w - w.mean()) / spread
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def inverse(affine: F64) -> F64:
    """The affine map backwards, float64 (2, 3)."""
    return np.asarray(cv2.invertAffineTransform(affine), np.float64)


def from_corner(affine: F64, x: float, y: float) -> F64:
    """The map for positions counted from (x, y) of the space it reads."""
    moved = affine.copy()
    moved[:, 2] += affine[:, :2] @ (x, y)
    return moved


@dataclass(frozen=True)
class Change:
    """Levels to be added to a frame inside a window.

    Attributes:
        levels: float32 BGR (h, w, 3), 0 at its edge.
        window: of that size, inside the frame.

    Raises:
        InternalError: sizes that differ, or another dtype.
    """

    levels: F32
    window: Box

    def __post_init__(self) -> None:
        width, height = box_size(self.window)
        check_array(self.levels, "change", (height, width, 3), np.float32)

    def seen_from(self, to_frame: F64) -> F64:
        """The map into the window, of a map into the frame."""
        return to_frame - [[0, 0, self.window[0]], [0, 0, self.window[1]]]


def align_face(
    frame: U8,
    to_frame: F64,
    *,
    out: npt.NDArray[np.generic],
    change: Change | None = None,
    workspace: Workspace | None = None,
) -> None:
    """The face of a frame, as parser and restorers take it.

    Args:
        frame: uint8 BGR (H, W, 3), any strides.
        to_frame: float64 (2, 3), from pixels of the aligned face to those of the frame, centres at whole
            numbers.
        out: float32 RGB (3, 512, 512), written with -1..1; or uint8 BGR (512, 512, 3).
        change: what is added to the frame first.
        workspace: scratch memory; the thread's own by default.

    Raises:
        InternalError: a wrong shape or dtype.
    """
    check_picture(frame, "frame")
    space = workspace or thread_workspace()
    source = space.array("aligned_source", _PICTURE, np.uint8)
    sample(frame, to_frame, ALIGNED, ALIGNED, out=source, border=BORDER)
    aligned = space.array("aligned", _PICTURE, np.float32)
    if change is None:
        np.copyto(aligned, source)
    else:
        sample(change.levels, change.seen_from(to_frame), ALIGNED, ALIGNED, out=aligned)
        cv2.add(aligned, source, dst=aligned, dtype=cv2.CV_32F)
        np.clip(aligned, 0, 255, out=aligned)
    if out.dtype == np.uint8:
        check_array(out, "out", _PICTURE, np.uint8)
        np.copyto(out, np.rint(aligned, out=aligned), casting="unsafe")
        return
    check_array(out, "out", (3, ALIGNED, ALIGNED), np.float32)
    np.multiply(aligned, np.float32(2 / 255), out=aligned)
    np.subtract(aligned, np.float32(1), out=aligned)
    cv2.split(aligned, [out[2], out[1], out[0]])


def sample(
    picture: U8 | F32,
    to_picture: F64,
    width: int,
    height: int,
    *,
    out: U8 | F32,
    border: tuple[int, ...] = (0, 0, 0),
) -> U8 | F32:
    """Sample along an affine map: bilinear, after area averages where that reduces to half or less.

    Args:
        picture: uint8 or float32 (H, W) or (H, W, 3).
        to_picture: float64 (2, 3), from (x, y, 1) of `out` to the picture.
        width, height: of `out`.
        out: (height, width) or (height, width, 3) of the picture's dtype, C-contiguous; written.
        border: the value outside the picture.

    Returns:
        `out`.
    """
    pixels = int(np.hypot(to_picture[0, 0], to_picture[1, 0]))
    if pixels > 1:
        picture, to_picture = _reduced(picture, to_picture, pixels, width, height)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(
        picture, to_picture, (width, height), dst=out, flags=how,
        borderMode=cv2.BORDER_CONSTANT, borderValue=border,
    )  # fmt: skip
    return out


def _reduced(
    picture: U8 | F32, to_picture: F64, pixels: int, width: int, height: int
) -> tuple[U8 | F32, F64]:
    """The part that is looked at, each block of `pixels` x `pixels` averaged, and the map into it."""
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ to_picture.T
    limits = np.array(picture.shape[1::-1])
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 2 * pixels, 0, limits - 1)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2 * pixels, low + 1, limits)
    columns, rows = np.maximum((high - low) // pixels, 1)
    # Whole blocks only: what is left over at the far edge is less than a pixel of the result.
    part = picture[low[1] : low[1] + rows * pixels, low[0] : low[0] + columns * pixels]
    small = cv2.resize(part, (int(columns), int(rows)), interpolation=cv2.INTER_AREA)
    moved = to_picture.copy()
    moved[:, 2] += 0.5 - low
    moved /= pixels
    moved[:, 2] -= 0.5
    return cast(F32, small), moved


_PICTURE = (ALIGNED, ALIGNED, 3)
