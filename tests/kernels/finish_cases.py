"""Kernels of the finish against their references. Run by pytest, and as a script under the address sanitizer.

Both sample the same pixels with the same weights: positions are rounded to 1/32 pixel and blocks begin at the
same places. What is left is float32: a mask's ramp at positions in float32 instead of float64, off by up to
1.5 * 2**-24 / 0.04 of its height, so 6e-4 levels, and sums in another order, some 1e-4. Rounded to bytes that
is a level where the exact value lies as close to a tie.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import cpu_kernels
import cv2
import numpy as np
from cpu_cases import views
from finish_parts import Faces, Scene
from tolerances import assert_same_but_for_ties

from dubstream.kernels.face_align import ALIGNED
from dubstream.kernels.finish import FinishSettings
from dubstream.kernels.modules import KernelModules
from dubstream.runtime.blackout import check_dubbed

MOST_LEVELS = 1e-3
BOX_ONLY = FinishSettings(parsed=None)
SCENES = {
    "usual": Scene((170, 190), ((30, 20, 150, 145), (60, 50, 120, 120)), (0.1, -0.4)),
    "cut": Scene((150, 131), ((-30, 40, 90, 190), (80, -20, 150, 60)), (0.2, 0.7)),
    "tiny": Scene((61, 70), ((3, 4, 13, 17), (62, 50, 75, 71)), (-0.3, 1.2)),
    "upside down": Scene((140, 140), ((20, 15, 125, 130),), (3.0,), smooth=True),
    "reduced": Scene((150, 170), ((30, 20, 150, 145), (-20, 0, 100, 170)), (0.1, -0.4), zoom=7.3),
    "at a corner": Scene((60, 80), ((78, 58, 138, 128),), (0.5,), zoom=22.0),
    "sliver": Scene((60, 2), ((-30, 5, 33, 58),), (0.1,), zoom=21.0),  # narrower than what is averaged
    "box only": Scene((120, 130), ((10, 12, 100, 110),), (0.3,), settings=BOX_ONLY),
}
LARGE = Scene((1200, 1000), ((-80, 40, 1020, 1150),), (0.15,), smooth=True)


def every(*scenes: Scene) -> list[Faces]:
    pairs = product(scenes or SCENES.values(), (True, False))
    return [Faces(scene, planes=planes, seed=seed) for seed, (scene, planes) in enumerate(pairs)]


def check_aligned(faces: Faces, modules: KernelModules) -> None:
    found, expected = faces.aligned(modules), faces.aligned_by_reference()
    if faces.planes:
        assert np.abs(found - expected).max() * 127.5 <= MOST_LEVELS
    else:
        assert_same_but_for_ties(found, expected)


def case_faces(modules: KernelModules) -> None:
    for faces in every():
        check_aligned(faces, modules)
        aligned = faces.aligned_by_reference()
        for restores in (True,) if faces.planes else (True, False):
            found = faces.finished(modules, aligned, restores=restores)
            expected = faces.finished_by_reference(aligned, restores=restores)
            assert_same_but_for_ties(found, expected)
            assert (expected != faces.memory).any() or faces.scene is SCENES["at a corner"]
            assert (faces.parsed == 1).all()


def case_large_faces(modules: KernelModules) -> None:
    """Larger than the aligned picture by more than two."""
    for faces in every(LARGE):
        check_aligned(faces, modules)
        aligned = faces.aligned_by_reference()
        assert_same_but_for_ties(faces.finished(modules, aligned), faces.finished_by_reference(aligned))


def case_colours_are_matched(modules: KernelModules) -> None:
    """Gains away from 1 and within their limits, for a face that is darker and of another hue."""
    scene = SCENES["upside down"]
    for strength, limits in ((0.9, (1.0, 1.25)), (0.1, (1.25, 1.25))):
        faces = Faces(scene, planes=True)
        x1, y1, x2, y2 = scene.boxes[0]
        part = cv2.resize(faces.pictures[0, y1:y2, x1:x2], (48, 40), interpolation=cv2.INTER_AREA)
        faces.enhanced[0] = part.transpose(2, 0, 1) * np.float32(strength / 255)
        faces.enhanced[0, 1] *= np.float32(0.97)
        aligned = faces.aligned(modules)
        found = faces.finished(modules, aligned, restores=False)
        gains = faces.gains[0]
        assert (gains >= limits[0]).all()
        assert (gains <= limits[1]).all()
        assert gains[1] > gains[0] or limits[0] == limits[1]
        assert_same_but_for_ties(found, faces.finished_by_reference(aligned, restores=False))


def case_no_face_seen(modules: KernelModules) -> None:
    """Every byte stays, the flag says so, and only for the face that was not seen."""
    for planes in (True, False):
        faces = Faces(SCENES["usual"], planes=planes)
        faces.probabilities[0] = 0
        found = faces.finished(modules, faces.aligned(modules))
        assert faces.parsed.tolist() == [[0], [1]]
        np.testing.assert_array_equal(found[0], faces.memory[0])
        assert (found[1] != faces.memory[1]).any()
        assert (faces.gains[0] == 1).all()


def case_a_mouth_that_stays(modules: KernelModules) -> None:
    """A restorer that changes nothing changes no byte."""
    for planes in (True, False):
        faces = Faces(SCENES["usual"], planes=planes)
        aligned = faces.aligned(modules)
        faces.restored = aligned.copy()
        plain = faces.finished(modules, aligned, restores=False)
        faces.aligned(modules)
        np.testing.assert_array_equal(faces.finished(modules, aligned), plain)


def case_values_that_are_no_numbers(modules: KernelModules) -> None:
    """One such value in any network's picture blackens its face's box, and no other face of the batch."""
    scene = replace(SCENES["usual"], smooth=True)
    (x1, y1, x2, y2), _ = scene.boxes
    faces = Faces(scene, planes=True)
    whole = faces.finished(modules, faces.aligned(modules))
    assert not is_black(views(whole, *scene.size)[0], faces.pictures[0], scene.boxes[0])
    for name, at, value in (
        ("enhanced", (2, 39, 0), np.nan),
        ("probabilities", (0, 3, 7), -np.inf),
        ("restored", (1, 370, 256), np.inf),
    ):
        faces = Faces(scene, planes=True)
        getattr(faces, name)[(0, *at)] = value
        found = faces.finished(modules, faces.aligned(modules))
        np.testing.assert_array_equal(found[1], whole[1])
        assert (views(found, *scene.size)[0, y1:y2, x1:x2] == 0).all()
        assert is_black(views(found, *scene.size)[0], faces.pictures[0], scene.boxes[0])


def is_black(dubbed: np.ndarray, source: np.ndarray, box: tuple[int, int, int, int]) -> bool:
    """Whether the job's own check would stop here."""
    try:
        check_dubbed(dubbed, source, box)
    except Exception as error:
        return "is black" in str(error)
    return False


def case_planted_overrun(modules: KernelModules) -> None:
    """A mask one pixel short of what is written: proves that the sanitizer sees what these kernels do."""
    faces = Faces(SCENES["tiny"], planes=True)
    faces.scratch["masks"] = np.zeros(2 * 2 * (ALIGNED // 4) ** 2 * 4 - 4, np.uint8)
    faces.finished(modules, faces.aligned(modules))


CASES = [
    case_faces,
    case_colours_are_matched,
    case_no_face_seen,
    case_a_mouth_that_stays,
    case_values_that_are_no_numbers,
]
UNSANITIZED = [case_large_faces]  # the same paths as "reduced", and slow


if __name__ == "__main__":
    built = cpu_kernels.modules(Path(sys.argv[1]))
    chosen = [globals()[sys.argv[2]]] if len(sys.argv) > 2 else CASES
    for case in chosen:
        case(built)
    print(f"{len(chosen)} cases")
