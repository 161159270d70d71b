"""The source box without dlib, and one that was handed in."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.errors import NoFaceError, UsageError
from dubstream.runtime.faces.geometry import Box
from dubstream.runtime.upstream.landmarks import source_box
from dubstream.runtime.upstream.source import found_source_box, given_source_box, searched


def landmarks_of(rgb: np.ndarray) -> np.ndarray | None:
    """A face where the red is, in an RGB picture."""
    rows, columns = np.nonzero(rgb[..., 0])
    if not len(rows):
        return None
    points = np.zeros((68, 2), np.int32)
    points[36:42], points[42:48], points[30], points[48], points[54] = (
        (112, 121), (144, 121), (128, 130), (116, 145), (140, 145),
    )  # fmt: skip
    return points + np.array([columns[0], rows[0]], np.int32)


def frame(*red: tuple[int, int]) -> np.ndarray:
    picture = np.zeros((300, 400, 3), np.uint8)
    for x, y in red:
        picture[y, x, 2] = 255  # BGR
    return picture


def test_the_first_frame_that_shows_a_face_decides() -> None:
    frames = [frame(), frame((50, 20)), frame((90, 20))]
    wanted = source_box(landmarks_of(frames[1][..., ::-1]), 400, 300)
    assert found_source_box(enumerate(frames), landmarks_of) == wanted  # type: ignore[arg-type]


def test_the_first_half_is_searched_and_said_to_be_empty() -> None:
    assert [searched(count) for count in (1, 2, 3, 10)] == [1, 1, 1, 5]
    with pytest.raises(NoFaceError, match=r"frames 0 to 2, .* show no face.*--source-box"):
        found_source_box(enumerate([frame()] * 3), landmarks_of)  # type: ignore[arg-type]


@pytest.mark.parametrize("box", [(0, 0, 401, 300), (-1, 0, 50, 50), (10, 10, 25, 100), (0, 290, 50, 301)])
def test_a_box_has_to_be_a_part_of_the_frame(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="inside 400x300"):
        given_source_box(Box(*box), 400, 300)
    assert given_source_box(Box(0, 0, 400, 300), 400, 300) == (0, 0, 400, 300)
