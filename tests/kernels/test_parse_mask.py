"""From a parse to soft masks, seen through a window of the frame."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.errors import InternalError
from dubstream.kernels.face_align import ALIGNED
from dubstream.kernels.parse_mask import FEATHER, SIDE, STEP, FaceMasks, face_masks, mask_in_window


def parse(face: tuple[slice, slice], mouth: tuple[slice, slice]) -> np.ndarray:
    masks = np.zeros((2, ALIGNED, ALIGNED), np.float32)
    masks[0][face] = 1
    masks[1][mouth] = 1
    return masks


BOXES = (slice(100, 420), slice(120, 400)), (slice(340, 400), slice(200, 320))


def made(masks: np.ndarray) -> FaceMasks:
    return face_masks(masks)


def test_the_face_ends_inside_its_outline_and_the_mouth_outside() -> None:
    found = made(parse(*BOXES))
    rows, columns = (slice(s.start // STEP, s.stop // STEP) for s in BOXES[0])
    background = np.ones((SIDE, SIDE), bool)
    background[rows, columns] = False
    assert found.face[background].max() <= 0.01
    assert found.face[60, 60] > 0.999
    lips = found.mouth[340 // STEP + 1 : 400 // STEP - 1, 200 // STEP + 1 : 320 // STEP - 1]
    assert lips.min() > 0.99
    far = int(3 * FEATHER) + 1
    assert found.mouth[340 // STEP - far].max() < 0.01


def test_masks_are_feathered() -> None:
    found = made(parse(*BOXES))
    for mask in (found.face, found.mouth):
        steepest = max(np.abs(np.diff(mask, axis=axis)).max() for axis in (0, 1))
        assert steepest < 1 / 2, "in one pixel of a mask, four of the aligned face"
        assert mask.min() >= 0
        assert mask.max() <= 1


def test_a_face_cut_by_the_border_fades_before_it() -> None:
    everything = (slice(None), slice(None))
    found = made(parse(everything, everything))
    for mask in (found.face, found.mouth):
        assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) < 0.06
        assert mask[SIDE // 2, SIDE // 2] == 1


def test_nothing_parsed_is_nothing_replaced() -> None:
    found = made(np.zeros((2, ALIGNED, ALIGNED), np.float32))
    assert found.empty
    assert not made(parse(*BOXES)).empty
    assert not found.face.any()
    assert not found.mouth.any()


def test_masks_in_bytes_are_the_same_masks() -> None:
    masks = parse(*BOXES)
    single, bytes_ = made(masks), made(np.ascontiguousarray((masks * 255).transpose(1, 2, 0), np.uint8))
    assert np.abs(single.face - bytes_.face).max() < 0.02
    assert np.abs(single.mouth - bytes_.mouth).max() < 0.02


@pytest.mark.parametrize("scale", [0.5, 1.3, 6.0])
def test_a_mask_lands_where_the_face_is(scale: float) -> None:
    mask = made(parse(*BOXES)).mouth
    to_aligned = np.array([[scale, 0.0, -40.0], [0.0, scale, -60.0]])
    middle = (np.array([259.5, 369.5]) - to_aligned[:, 2]) / scale
    x, y = np.rint(middle).astype(int)
    window = (x - 300, y - 250, x + 300, y + 250)
    found = mask_in_window(mask, to_aligned, window, out=np.empty((500, 600), np.float32))
    rows, columns = np.mgrid[0:500, 0:600]
    centre = np.array([(found * axis).sum() for axis in (columns, rows)]) / found.sum()
    assert np.abs(centre + np.array(window[:2]) - middle).max() < 1.0 / min(scale, 1)
    assert found.sum() * scale**2 == pytest.approx(mask.sum() * STEP**2, rel=0.03)


@pytest.mark.parametrize("shape", [(2, 256, 256), (1, ALIGNED, ALIGNED), (ALIGNED, ALIGNED, 2)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InternalError, match="expected"):
        face_masks(np.zeros(shape, np.float32))


def test_a_parse_that_is_not_finite_is_refused() -> None:
    masks = parse(*BOXES)
    masks[0, 300, 300] = np.nan
    with pytest.raises(InternalError, match="finite"):
        face_masks(masks)
