"""CPBD: the share of a picture's edges at which no blur can be seen.

Narvekar and Karam, "A No-Reference Image Blur Metric Based on the Cumulative Probability of Blur Detection",
IEEE Transactions on Image Processing 20(9), 2011. The measure by which the paper of VideoReTalking compares
sharpness (section 4). People notice the blur of an edge of width w, in pixels, with probability
1 - exp(-(w / w_jnb)^3.6), where the just noticeable width w_jnb depends on the local contrast.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

BLOCK = 64  # pixels; about what the fovea sees at once
_EDGE_SHARE = 0.002  # of a block's pixels, below which it is too smooth to be judged
_LOW_CONTRAST = 50  # levels; at or below, blur is noticed later
_JNB_LOW, _JNB_HIGH = 5, 3  # pixels, for low and for high contrast
_REACH = 6  # pixels to either side of an edge; wider ones are all the same
_SOBEL_FACTOR = 4.0  # an edge's gradient energy over the picture's mean, the classical choice
_FAINTEST_STEP = 8.0  # levels; a smaller step is noise, however flat the rest


def cpbd(picture: Picture) -> float | None:
    """Cumulative probability of blur detection.

    Edges are vertical ones, as in the paper: their width is the length of the monotone run of luma along the
    row. Two details differ from the paper: a block is worth judging when it holds enough of these edges,
    rather than of Canny's, and blocks cut off by the picture's border count, so that a small window has a
    value.

    Args:
        picture: uint8 (H, W) luma.

    Returns:
        0 (every edge visibly blurred) to 1 (none); None where there is no edge to judge.
    """
    edges = _vertical_edges(picture)
    allowed = np.zeros(
        picture.shape, np.uint8
    )  # the just noticeable width at every pixel, 0 in smooth blocks
    height, width = picture.shape
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            place = (slice(top, top + BLOCK), slice(left, left + BLOCK))
            block = picture[place]
            if np.count_nonzero(edges[place]) > _EDGE_SHARE * block.size:
                contrast = int(block.max()) - int(block.min())
                allowed[place] = _JNB_LOW if contrast <= _LOW_CONTRAST else _JNB_HIGH
    rows, columns = np.nonzero(edges & (allowed > 0))
    if not rows.size:
        return None
    # P(blur) <= 63 % exactly where the width is at most the just noticeable one: 1 - exp(-1) = 0.632.
    return float(np.mean(edge_widths(picture, rows, columns) <= allowed[rows, columns]))


def edge_widths(
    picture: Picture, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Pixels between the local extremes of luma left and right of some pixels, along their rows.

    int64, as long as `rows`; exact up to `_REACH` pixels on each side, where counting ends.
    """
    padded = np.pad(picture, ((0, 0), (_REACH, _REACH)), mode="edge").astype(np.int16)
    steps = np.sign(padded[:, 1:] - padded[:, :-1]).astype(np.int8)
    at = columns + _REACH
    slope = np.sign(padded[rows, at + 1] - padded[rows, at - 1])
    widths = np.zeros(len(rows), np.int64)
    for begin, direction in ((at - 1, -1), (at, 1)):
        rising = slope != 0
        for distance in range(_REACH):
            rising &= steps[rows, begin + direction * distance] == slope
            widths += rising
    return widths


def _vertical_edges(picture: Picture) -> npt.NDArray[np.bool_]:
    """Thinned vertical edges: strong horizontal gradients that are the largest along their row."""
    across = np.abs(np.asarray(cv2.Sobel(picture, cv2.CV_32F, 1, 0), dtype=np.float32))
    down = np.abs(np.asarray(cv2.Sobel(picture, cv2.CV_32F, 0, 1), dtype=np.float32))
    # A step of one level gives a response of 4.
    threshold = max(float(np.sqrt(_SOBEL_FACTOR * np.mean(across**2))), 4 * _FAINTEST_STEP)
    beside = np.pad(across, ((0, 0), (1, 1)))
    peak = (across >= beside[:, :-2]) & (across > beside[:, 2:])
    edges: npt.NDArray[np.bool_] = peak & (across > threshold) & (across >= down)
    return edges
