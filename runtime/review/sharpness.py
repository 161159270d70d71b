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
    judged = edges & (allowed > 0)
    if not judged.any():
        return None
    # P(blur) <= 63 % exactly where the width is at most the just noticeable one: 1 - exp(-1) = 0.632.
    return float(np.mean(edge_widths(picture)[judged] <= allowed[judged]))


def edge_widths(picture: Picture) -> npt.NDArray[np.int32]:
    """Pixels between the local extremes of luma left and right of every pixel, along its row.

    int32 (H, W). In a monotone run it is the run's length; at an extreme, that of the longer run beside it; 0
    inside a plateau.
    """
    steps = np.sign(np.diff(picture.astype(np.int16), axis=1)).astype(np.int8)
    lengths = np.where(steps == 0, 0, _run_lengths(steps))
    padded = np.pad(lengths, ((0, 0), (1, 1)))
    return np.asarray(np.maximum(padded[:, :-1], padded[:, 1:]), dtype=np.int32)


def _run_lengths(steps: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """For every step, how many equal steps in a row it is part of."""
    height, count = steps.shape
    at = np.arange(count)
    change = np.ones((height, count + 1), np.bool_)
    change[:, 1:-1] = steps[:, 1:] != steps[:, :-1]
    first = np.maximum.accumulate(np.where(change[:, :-1], at, 0), axis=1)
    last = np.minimum.accumulate(np.where(change[:, 1:], at, count)[:, ::-1], axis=1)[:, ::-1]
    lengths: npt.NDArray[np.int64] = last - first + 1
    return lengths


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
