"""All measures of picture pairs, frame by frame, in memory that does not grow with pictures."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from dubstream.kernels.boxes import Box, cut
from dubstream.runtime.faces.geometry import Pads
from dubstream.runtime.faces.track import Track
from dubstream.runtime.review.motion import motion_energy
from dubstream.runtime.review.pictures import Picture, luma, mean_ssim, psnr_db, ssim_map
from dubstream.runtime.review.seams import Signed, background, cell_means, flicker, seam_step
from dubstream.runtime.review.sharpness import cpbd
from dubstream.runtime.review.windows import Windows, mouth_patch, windows_of

Values = npt.NDArray[np.float64]

NAMES = (
    "ssim", "psnr", "mouth_ssim", "sharpness_a", "sharpness_b", "mouth_sharpness_a", "mouth_sharpness_b",
    "motion_a", "motion_b", "seam", "flicker", "background_share", "background_largest",
)  # fmt: skip
"""The series, one value per frame; NaN where there is none (no face, no edge, first frame)."""

_CUT_LEVELS = 25.0  # mean change of luma from frame to frame that only a cut makes


@dataclass(frozen=True)
class Worst:
    """The frame pair with the lowest similarity.

    Attributes:
        frame: its number in the output, from 0.
        similarity: SSIM.
        first, second: uint8 BGR (h, w, 3), of A and of B.
    """

    frame: int
    similarity: float
    first: Picture
    second: Picture


class Meter:
    """Takes pairs of frames in order.

    Args:
        track: the face in A's source frames.
        width, height: of both frames.
        pads: of the dub's face box.
        background_level: see `dubstream.runtime.review.seams.background`.

    Attributes:
        seconds: time spent by measure.
        worst, worst_mouth: the worst pair; the worst mouth window. None before the first frame or face.
    """

    def __init__(self, track: Track, width: int, height: int, pads: Pads, background_level: int) -> None:
        self._track, self._size, self._pads, self._level = track, (width, height), pads, background_level
        self._series = {name: array("d") for name in NAMES}
        self._frames = 0
        self._cells: list[Values | None] = [None, None]  # of the two frames before
        self._before: tuple[Picture, _Patches | None] | None = None
        self.seconds: dict[str, float] = {}
        self.worst: Worst | None = None
        self.worst_mouth: Worst | None = None

    def add(self, first: Picture, second: Picture, source: int) -> None:
        """Measure one pair.

        Args:
            first, second: uint8 BGR (H, W, 3), read and not kept, except copies of the worst.
            source: which frame of the track they show.
        """
        windows = None
        if self._track.present[source]:
            windows = windows_of(self._track.points[source], *self._size, self._pads)
        y_first, y_second = luma(first), luma(second)
        found = dict.fromkeys(NAMES, float("nan"))
        found |= self._similarity(first, second, y_first, y_second, windows)
        found |= self._sharpness(y_first, y_second, windows)
        found |= self._motion(y_first, y_second, windows)
        found |= self._blending(y_first, y_second, windows)
        with self._timed("background"):
            outside = background(first, second, None if windows is None else windows.blend, self._level)
        found |= {"background_share": outside.share, "background_largest": outside.largest}
        for name, value in found.items():
            self._series[name].append(value)
        self._frames += 1

    def series(self) -> dict[str, Values]:
        """float64 (frames,) by name, see `NAMES`."""
        return {name: np.array(values, dtype=np.float64) for name, values in self._series.items()}

    def _similarity(
        self, first: Picture, second: Picture, y_first: Picture, y_second: Picture, windows: Windows | None
    ) -> dict[str, float]:
        with self._timed("ssim"):
            similarity = ssim_map(y_first, y_second)
            found = {"ssim": mean_ssim(similarity)}
        with self._timed("psnr"):
            found["psnr"] = psnr_db(y_first, y_second)
        self.worst = self._worse(self.worst, found["ssim"], first, second, None)
        if windows is not None:
            found["mouth_ssim"] = float(similarity[_part(windows.mouth)].mean())
            self.worst_mouth = self._worse(
                self.worst_mouth, found["mouth_ssim"], first, second, windows.mouth
            )
        return found

    def _worse(
        self, so_far: Worst | None, similarity: float, first: Picture, second: Picture, box: Box | None
    ) -> Worst:
        if so_far is not None and so_far.similarity <= similarity:
            return so_far
        part = ... if box is None else _part(box)
        return Worst(self._frames, similarity, first[part].copy(), second[part].copy())

    def _sharpness(self, y_first: Picture, y_second: Picture, windows: Windows | None) -> dict[str, float]:
        places = {"": (slice(None), slice(None))}
        if windows is not None:
            places["mouth_"] = _part(windows.mouth)
        found = {}
        with self._timed("sharpness"):
            for place, part in places.items():
                for side, picture in (("a", y_first), ("b", y_second)):
                    value = cpbd(picture[part])
                    found[f"{place}sharpness_{side}"] = float("nan") if value is None else value
        return found

    def _motion(self, y_first: Picture, y_second: Picture, windows: Windows | None) -> dict[str, float]:
        found = {}
        with self._timed("lip motion"):
            patches = None
            if windows is not None:
                patches = (mouth_patch(y_first, windows), mouth_patch(y_second, windows))
            small = np.asarray(y_first[::8, ::8])
            if patches and self._before and self._before[1] and not _is_cut(small, self._before[0]):
                for side, here, before in zip("ab", patches, self._before[1], strict=True):
                    found[f"motion_{side}"] = motion_energy(here, before)
            self._before = (small.copy(), patches)
        return found

    def _blending(self, y_first: Picture, y_second: Picture, windows: Windows | None) -> dict[str, float]:
        cells = None
        found = {}
        with self._timed("seam, flicker"):
            if windows is not None:
                x1, y1, x2, y2 = windows.blend
                # Two pixels around the window, where a seam has its outer side.
                left, top = max(x1 - 2, 0), max(y1 - 2, 0)
                around = (slice(top, y2 + 2), slice(left, x2 + 2))
                difference: Signed = np.subtract(y_second[around], y_first[around], dtype=np.int16)
                window, *others = (
                    _moved(box, -left, -top) for box in (windows.blend, windows.face, windows.mask)
                )
                found["seam"] = seam_step(difference, [window, *others])
                cells = cell_means(difference, window)
            earlier, before = self._cells
            if earlier is not None and before is not None and cells is not None:
                self._series["flicker"][-1] = flicker(earlier, before, cells)  # of the frame before
            self._cells = [before, cells]
        return found

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - began


_Patches = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def _part(box: Box) -> tuple[slice, slice]:
    return cut(box, (0, 0, 0, 0))


def _moved(box: Box, x: int, y: int) -> Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def _is_cut(picture: Picture, before: Picture) -> bool:
    return float(np.abs(picture.astype(np.int16) - before).mean()) > _CUT_LEVELS
