"""The finish as a whole: what it may touch, what it must not, and how sharp it stays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from kernels_reference import noise_picture, outside
from skimage.data import astronaut

from dubstream.engines.errors import InternalError
from dubstream.kernels.boxes import Box, cut
from dubstream.kernels.face_align import ALIGNED, GFPGAN_POINTS, sample, similarity
from dubstream.kernels.finish import (
    FinishSettings,
    Restored,
    align_dubbed,
    finish_face,
)
from dubstream.kernels.parse_mask import FaceMasks, face_masks, mask_in_window
from dubstream.kernels.upstream_blend import laplacian_blend_uint8
from dubstream.runtime.review.sharpness import cpbd

POINTS = np.array([[203, 118], [249, 114], [226, 142], [208, 164], [250, 162]], float)
BOX_ONLY = FinishSettings(parsed=None)


def masks(face: float = 1.0) -> FaceMasks:
    """An ellipse for the face, one for the mouth, where the template has them."""
    found = np.zeros((2, ALIGNED, ALIGNED), np.float32)
    cv2.ellipse(found[0], (256, 300), (130, 180), 0, 0, 360, face, -1)
    cv2.ellipse(found[1], (256, 370), (75, 40), 0, 0, 360, 1.0, -1)
    return face_masks(found)


class Scene:
    """A portrait enlarged by `scale`, its face box, and a prediction."""

    def __init__(self, scale: float = 1.6, change: float = 0.0, enlarge: int = cv2.INTER_CUBIC) -> None:
        source = np.ascontiguousarray(astronaut()[:340, :420, ::-1])
        self.frame = cv2.resize(source, None, fx=scale, fy=scale, interpolation=enlarge)
        points = POINTS * scale
        left, top = points.min(axis=0) - 0.75 * (points[1, 0] - points[0, 0])
        right, bottom = points.max(axis=0) + (points[1, 0] - points[0, 0]) * np.array([0.75, 0.8])
        self.box: Box = (int(left), int(top), int(right), int(bottom))
        self.to_aligned = similarity(points, GFPGAN_POINTS)
        face = cv2.resize(self.frame[cut(self.box, (0, 0, 0, 0))], (384, 384), interpolation=cv2.INTER_CUBIC)
        enhanced = np.clip(face.astype(np.float32) / 255 + change, 0, 1)
        self.enhanced = np.ascontiguousarray(enhanced.transpose(2, 0, 1))

    def aligned(self, settings: FinishSettings = BOX_ONLY) -> np.ndarray:
        planes = np.empty((3, ALIGNED, ALIGNED), np.float32)
        align_dubbed(self.frame, self.enhanced, self.box, self.to_aligned, out=planes, settings=settings)
        return planes

    def finished(
        self, found: FaceMasks, mouth: Restored | None = None, settings: FinishSettings | None = None
    ) -> tuple[np.ndarray, Box]:
        out = np.empty_like(self.frame)
        window = finish_face(
            self.frame, self.enhanced, self.box, self.to_aligned, found, mouth, out=out,
            settings=settings or FinishSettings(),
        )  # fmt: skip
        return out, window


@pytest.mark.parametrize("scale", [0.7, 1.6, 3.1])
@pytest.mark.parametrize("settings", [FinishSettings(), BOX_ONLY])
def test_every_byte_outside_the_window_is_the_sources(scale: float, settings: FinishSettings) -> None:
    scene = Scene(scale, change=0.2)
    before = scene.frame.copy()
    planes = scene.aligned()
    restored = np.random.default_rng(0).uniform(-1, 1, planes.shape).astype(np.float32)
    out, window = scene.finished(masks(), Restored(restored, planes), settings)
    kept = outside(before, window)
    assert kept.mean() > 0.3
    np.testing.assert_array_equal(out[kept], before[kept])
    np.testing.assert_array_equal(scene.frame, before)
    assert (out != before).any()


def test_background_inside_the_window_is_the_sources_too() -> None:
    scene = Scene(change=0.3)
    found = masks()
    out, window = scene.finished(found)
    size = window[3] - window[1], window[2] - window[0]
    share = mask_in_window(found.face, scene.to_aligned, window, out=np.empty(size, np.float32))
    # The coarsest band of this box mixes over some pixels more.
    beyond = cv2.dilate(share, np.ones((41, 41))) == 0
    rows, columns = cut(window, (0, 0, 0, 0))
    assert beyond.mean() > 0.1
    np.testing.assert_array_equal(out[rows, columns][beyond], scene.frame[rows, columns][beyond])


def test_where_no_face_is_parsed_the_frame_stays() -> None:
    scene = Scene(change=0.3)
    out, _ = scene.finished(masks(face=0.0))
    np.testing.assert_array_equal(out, scene.frame)


def test_a_prediction_equal_to_the_source_changes_next_to_nothing() -> None:
    scene = Scene()
    out, _ = scene.finished(masks())
    assert np.abs(out.astype(int) - scene.frame).mean() < 0.05


def test_a_restorer_that_changes_nothing_changes_no_byte() -> None:
    scene = Scene(change=0.1)
    planes = scene.aligned()
    plain, _ = scene.finished(masks())
    restored, _ = scene.finished(masks(), Restored(planes.copy(), planes))
    np.testing.assert_array_equal(restored, plain)


@pytest.mark.parametrize("settings", [FinishSettings(), BOX_ONLY])
def test_the_mouth_is_the_restorers_and_the_rest_of_the_face_is_not(settings: FinishSettings) -> None:
    scene = Scene()
    planes = scene.aligned()
    restored = np.clip(planes + 0.4, -1, 1)
    plain, _ = scene.finished(masks(), settings=settings)
    out, _ = scene.finished(masks(), Restored(restored, planes), settings)
    change = out.astype(int) - plain
    aligned = np.empty((ALIGNED, ALIGNED, 3), np.float32)
    sample(
        change.astype(np.float32), np.linalg.inv(np.vstack([scene.to_aligned, (0, 0, 1)]))[:2],
        ALIGNED, ALIGNED, out=aligned,
    )  # fmt: skip
    expected = (restored - planes)[::-1].transpose(1, 2, 0) * 127.5
    inside = (slice(350, 390), slice(210, 300))
    assert np.abs(aligned[inside] - expected[inside]).mean() < 2.5
    assert np.abs(aligned[:300]).max() <= 1
    assert np.abs(aligned[:, :140]).max() <= 1


def test_halves_bring_the_same_mouth_as_planes() -> None:
    scene = Scene()
    planes = scene.aligned()
    restored = np.clip(planes * 0.7, -1, 1)

    def picture(values: np.ndarray) -> np.ndarray:
        return np.rint((values[::-1].transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)

    single, _ = scene.finished(masks(), Restored(restored, planes))
    half, _ = scene.finished(masks(), Restored(picture(restored), picture(planes)))
    assert np.abs(single.astype(int) - half).max() <= 2


def test_the_seam_has_no_step_of_brightness() -> None:
    scene = Scene()
    darker = Scene()
    darker.enhanced = np.ascontiguousarray(darker.enhanced * np.float32(0.88))
    plain, _ = scene.finished(masks())
    out, _ = darker.finished(masks())
    box_only, _ = darker.finished(masks(), settings=BOX_ONLY)
    assert np.abs(out.astype(int) - plain).max() <= 3
    assert np.abs(box_only.astype(int) - plain).max() > 20


def _upstream(scene: Scene, found: FaceMasks) -> np.ndarray:
    """The original's finish of the same picture: all of it through 512 x 512."""
    height, width = scene.frame.shape[:2]
    rows, columns = cut(scene.box, (0, 0, 0, 0))
    pasted = scene.frame.copy()
    truncated = (scene.enhanced.transpose(1, 2, 0) * 255).astype(np.uint8)
    size = pasted[rows, columns].shape[1::-1]
    pasted[rows, columns] = cv2.resize(truncated, size, interpolation=cv2.INTER_LINEAR)
    share = mask_in_window(
        found.face, scene.to_aligned, (0, 0, width, height), out=np.empty((height, width), np.float32)
    )
    small = [cv2.resize(each, (512, 512)) for each in (pasted, scene.frame, share)]
    blended = laplacian_blend_uint8(small[0], small[1], small[2], 6).clip(0, 255)
    return cv2.resize(blended, (width, height)).astype(np.uint8)


@pytest.mark.parametrize("scale", [1.3, 2.0, 3.0])
def test_the_window_is_sharper_than_the_originals_finish(scale: float) -> None:
    # Repeated pixels keep edges one pixel wide, as those of a camera are at any resolution.
    scene, found = Scene(scale, enlarge=cv2.INTER_NEAREST), masks()
    ours, window = scene.finished(found)
    theirs = _upstream(scene, found)
    rows, columns = cut(window, (0, 0, 0, 0))
    measured = [
        cpbd(cv2.cvtColor(np.ascontiguousarray(picture[rows, columns]), cv2.COLOR_BGR2GRAY))
        for picture in (ours, theirs)
    ]
    assert None not in measured
    assert measured[0] > measured[1]
    assert _energy(ours[rows, columns]) > _energy(theirs[rows, columns])


def _energy(picture: np.ndarray) -> float:
    return float(np.square(cv2.Laplacian(picture.astype(np.float32), cv2.CV_32F)).mean())


def test_what_is_not_finite_is_refused() -> None:
    scene = Scene()
    planes = scene.aligned()
    broken = planes.copy()
    broken[1, 370, 256] = np.inf
    with pytest.raises(InternalError, match="finite"):
        scene.finished(masks(), Restored(broken, planes))
    scene.enhanced[0, 10, 10] = np.nan
    with pytest.raises(InternalError, match="finite"):
        scene.finished(masks())


@pytest.mark.parametrize("seed", range(8))
def test_odd_frames_and_boxes_at_the_edge(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(40, 160, 2))
    frame = noise_picture(rng, height, width)
    box = (int(-rng.integers(0, 20)), 5, width - 12, height + int(rng.integers(0, 9)))
    points = GFPGAN_POINTS / 512 * (width, height)
    out = np.empty_like(frame)
    window = finish_face(
        frame, rng.random((3, 64, 64), dtype=np.float32), box, similarity(points, GFPGAN_POINTS), masks(),
        out=out,
    )  # fmt: skip
    kept = outside(frame, window)
    np.testing.assert_array_equal(out[kept], frame[kept])
