"""Between NV12, as hardware decoders and encoders keep video, and BGR pictures. Reference of `nv12.cu`.

A chroma sample sits at the column of its left luma sample and between its two rows (MPEG-2 and H.264's
default). Odd sizes round the chroma planes up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dubstream.kernels.checks import F32, U8, check_array, check_out, check_picture


@dataclass(frozen=True)
class YuvMatrix:
    """How luma and chroma are made of red, green and blue.

    Attributes:
        red: weight of red in luma; green takes the rest.
        blue: weight of blue in luma.
        full_range: True for 0..255; False for luma 16..235 and chroma 16..240.
    """

    red: float
    blue: float
    full_range: bool = False


BT601 = YuvMatrix(0.299, 0.114)
BT601_FULL = YuvMatrix(0.299, 0.114, True)
BT709 = YuvMatrix(0.2126, 0.0722)
BT709_FULL = YuvMatrix(0.2126, 0.0722, True)

# float32 throughout, as in the kernel: the same operations in the same order give the same bits.
_ONE, _TWO = np.float32(1), np.float32(2)
_LUMA_SPAN = np.float32(219)  # levels, of limited range
_CHROMA_SPAN = np.float32(224)
_FULL_SPAN = np.float32(255)


def nv12_to_bgr(luma: U8, chroma: U8, matrix: YuvMatrix, *, out: U8) -> U8:
    """Decode one NV12 picture.

    Args:
        luma: uint8 (H, W).
        chroma: uint8 (ceil(H/2), 2 * ceil(W/2)), U and V alternating.
        matrix: the video's matrix and range.
        out: uint8 BGR (H, W, 3), C-contiguous; written.

    Returns:
        `out`.

    Raises:
        InternalError: a wrong shape or dtype.
    """
    height, width = check_picture(out, "out")
    check_out(out, "out", (height, width, 3), np.uint8)
    check_array(luma, "luma", (height, width), np.uint8)
    check_array(chroma, "chroma", _chroma_shape(height, width), np.uint8)
    light: F32 = luma.astype(np.float32)
    u, v = (_raise_chroma(chroma[:, which::2], height, width) - np.float32(128) for which in (0, 1))
    if not matrix.full_range:
        light = (light - np.float32(16)) * (_FULL_SPAN / _LUMA_SPAN)
        u, v = (part * (_FULL_SPAN / _CHROMA_SPAN) for part in (u, v))
    red, green, blue = _weights(matrix)
    from_u, from_v = _TWO * (_ONE - blue) * u, _TWO * (_ONE - red) * v
    out[:, :, 0] = _levels(light + from_u)
    out[:, :, 1] = _levels(light - (blue * from_u + red * from_v) / green)
    out[:, :, 2] = _levels(light + from_v)
    return out


def bgr_to_nv12(picture: U8, matrix: YuvMatrix, *, luma: U8, chroma: U8) -> None:
    """Encode one picture as NV12.

    Args:
        picture: uint8 BGR (H, W, 3).
        matrix: the video's matrix and range.
        luma: uint8 (H, W); written.
        chroma: uint8 (ceil(H/2), 2 * ceil(W/2)); written: columns 2i-1, 2i, 2i+1 weigh 1 : 2 : 1, rows alike.

    Raises:
        InternalError: a wrong shape or dtype.
    """
    height, width = check_picture(picture, "picture")
    check_array(luma, "luma", (height, width), np.uint8)
    check_array(chroma, "chroma", _chroma_shape(height, width), np.uint8)
    red, _, blue = _weights(matrix)
    scale = _ONE if matrix.full_range else _LUMA_SPAN / _FULL_SPAN
    luma[...] = _levels(
        _light(picture.astype(np.float32), matrix) * scale + np.float32(16 * (not matrix.full_range))
    )
    mean = _chroma_means(picture)
    light = _light(mean, matrix)
    scale = _ONE if matrix.full_range else _CHROMA_SPAN / _FULL_SPAN
    for which, (channel, weight) in enumerate(((0, blue), (2, red))):
        part = (mean[:, :, channel] - light) / (_TWO * (_ONE - weight))
        chroma[:, which::2] = _levels(part * scale + np.float32(128))


def _weights(matrix: YuvMatrix) -> tuple[np.float32, np.float32, np.float32]:
    red, blue = np.float32(matrix.red), np.float32(matrix.blue)
    return red, _ONE - red - blue, blue


def _light(bgr: F32, matrix: YuvMatrix) -> F32:
    red, green, blue = _weights(matrix)
    light: F32 = red * bgr[:, :, 2] + green * bgr[:, :, 1] + blue * bgr[:, :, 0]
    return light


def _chroma_shape(height: int, width: int) -> tuple[int, int]:
    return (height + 1) // 2, 2 * ((width + 1) // 2)


def _levels(values: npt.NDArray[np.floating]) -> U8:
    levels: U8 = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def _raise_chroma(part: U8, height: int, width: int) -> F32:
    """One chroma component at every luma sample: halfway on odd columns, 3:1 between rows."""
    rows, columns = part.shape
    x, y = np.arange(width), np.arange(height)
    left, right = x // 2, np.minimum(x // 2 + x % 2, columns - 1)
    near, far = y // 2, np.clip(y // 2 + np.where(y % 2, 1, -1), 0, rows - 1)
    wide = part[:, left].astype(np.int32) + part[:, right]
    raised: F32 = (3 * wide[near] + wide[far]).astype(np.float32) / np.float32(8)
    return raised


def _chroma_means(picture: U8) -> F32:
    """Picture colours at the chroma samples."""
    height, width = picture.shape[:2]
    columns = np.arange(0, width, 2)
    rows = np.arange(0, height, 2)
    wide: npt.NDArray[np.int32] = 2 * picture[:, columns].astype(np.int32)
    wide += picture[:, np.maximum(columns - 1, 0)]
    wide += picture[:, np.minimum(columns + 1, width - 1)]
    both = wide[rows] + wide[np.minimum(rows + 1, height - 1)]
    means: F32 = both.astype(np.float32) / np.float32(8)
    return means
