"""The finish by networks on the GPU: `dubstream.kernels.finish` on device addresses, in stream order.

    plan, check_faces, Launchers.start_blend, align     ── parser, restorer ──
    parse, Launchers.start_blend, add_mouth, match_face, Launchers.blend_bands, blacken_broken

Nothing here waits, allocates or copies. A finish works on the blend's arena, so tables are the blend's too.
Positions are rounded to 1/32 pixel and averages taken over the same blocks as on the host; see
`dubstream.kernels.face_align.sample`. What remains is the order of sums: a level at a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dubstream.kernels.blend_table import BlendTable
from dubstream.kernels.colour_match import HIGHEST, LEAST_WEIGHT, LOWEST
from dubstream.kernels.face_align import ALIGNED
from dubstream.kernels.launchers import DeviceFrames
from dubstream.kernels.modules import KernelModules
from dubstream.kernels.parse_mask import SIDE

STATE_BYTES = 320
"""Of one face's record (finish.cuh, FinishState)."""

_ACROSS, _DOWN = 128, 32
_SEAM_BYTES = 7 * 8

SCRATCH_BYTES = {
    "states": STATE_BYTES,
    "means": 2 * SIDE * SIDE * 4,
    "masks": 2 * SIDE * SIDE * 4,
    "partials": _ACROSS * (_DOWN + 1) * _SEAM_BYTES,
}
"""Device memory per face of each part of a `FinishScratch`."""


@dataclass(frozen=True)
class FinishScratch:
    """Addresses of what the launches of a batch leave for one another; 8-byte aligned.

    Attributes:
        states: records: where to sample, gains, whether a network failed.
        means: float32 (count, 2, 128, 128).
        masks: float32 (count, 2, 128, 128) in [0, 1], of face and mouth.
        partials: of sums over windows.
    """

    states: int
    means: int
    masks: int
    partials: int

    def item(self, first: int) -> FinishScratch:
        """The same from face `first` on."""
        return FinishScratch(
            *(getattr(self, name) + first * nbytes for name, nbytes in SCRATCH_BYTES.items())
        )


@dataclass(frozen=True)
class Pictures:
    """Pictures of networks on the device.

    Attributes:
        address: of the first.
        planes: float32 planes (count, channels, height, width); else uint8 (count, height, width, channels).
    """

    address: int
    planes: bool


class FinishLaunchers:
    """One method per operation; see the module for their order.

    Args:
        modules: the device's kernels.

    Every method raises what `KernelModules.launch` raises.
    """

    def __init__(self, modules: KernelModules) -> None:
        self._launch = modules.launch

    def plan(
        self, frames: DeviceFrames, items: int, to_aligned: int, count: int, scratch: FinishScratch, *,
        stream: object,
    ) -> None:  # fmt: skip
        """Where later launches sample; clears the records.

        Args:
            frames: for their size.
            items: address of a blend table's items, int32 (count, 10).
            to_aligned: address of float64 (count, 2, 3), from a frame pixel to one of the aligned face.
            count: faces.
            scratch: its states are written.
            stream: where to enqueue.
        """
        size = (frames.width, frames.height)
        self._launch(
            "finish_plan", (count, 1, 1), items, to_aligned, count, *size, scratch.states, stream=stream
        )

    def check_faces(
        self, enhanced: int, size: tuple[int, int], count: int, scratch: FinishScratch, *, stream: object
    ) -> None:
        """Remember faces that hold a value that is no finite number.

        Args:
            enhanced: address of float32 (count, 3, height, width).
            size: width, height.
            count: faces.
            scratch: its states are changed.
            stream: where to enqueue.
        """
        self._launch("check_faces", (*size, count), enhanced, *size, scratch.states, stream=stream)

    def align(
        self, frames: DeviceFrames, items: int, table: BlendTable, arena: int, scratch: FinishScratch,
        aligned: Pictures, *, stream: object,
    ) -> None:  # fmt: skip
        """Aligned faces with their synthesised mouths, after `Launchers.start_blend` with the box's mask.

        Args:
            frames: the source, whole.
            items: address of the table's items.
            table: what was uploaded there.
            arena: as `start_blend` left it.
            scratch: after `plan`.
            aligned: written: float32 RGB planes in [-1, 1] or uint8 BGR, 512 x 512.
            stream: where to enqueue.
        """
        name = "align_planes" if aligned.planes else "align_pictures"
        work = (items, arena, table.item_pixels, scratch.states, aligned.address)
        threads = (ALIGNED, ALIGNED, table.count)
        self._launch(name, threads, *frames.arguments[:3], *work, stream=stream)

    def parse(
        self, probabilities: Pictures, count: int, scratch: FinishScratch, parsed: int, *, stream: object
    ) -> None:
        """Soft masks of faces and mouths.

        Args:
            probabilities: of face and mouth, float32 (count, 2, 512, 512) in [0, 1] or uint8
                (count, 512, 512, 2).
            count: faces.
            scratch: its means and masks are written, its states changed where probabilities are not finite.
            parsed: address of uint8 (count, 1), written with whether a face was seen.
            stream: where to enqueue.
        """
        threads = (SIDE, SIDE, count)
        if probabilities.planes:
            found = (probabilities.address, scratch.means, scratch.states, parsed)
            self._launch("parse_planes", threads, *found, stream=stream)
        else:
            self._launch(
                "parse_pictures", threads, probabilities.address, scratch.means, parsed, stream=stream
            )
        white = 1.0 if probabilities.planes else 255.0
        self._launch("parse_masks", threads, scratch.means, white, scratch.masks, parsed, stream=stream)

    def add_mouth(
        self, items: int, to_aligned: int, table: BlendTable, arena: int, scratch: FinishScratch,
        restored: Pictures, aligned: Pictures, *, stream: object,
    ) -> None:  # fmt: skip
        """A restorer's change of the mouth, into the arena's differences.

        Args:
            items: address of the table's items.
            to_aligned: as for `plan`.
            table: what was uploaded there.
            arena: as `start_blend` left it.
            scratch: after `parse`.
            restored, aligned: the restorer's output and input: float32 RGB planes, the output clamped to
                [-1, 1], or uint8 BGR, 512 x 512; both alike. A value that is no finite number is black.
            stream: where to enqueue.
        """
        self._reduce(
            "mouth_bounds", "mouth_columns", (items, scratch.masks, scratch.states), table, scratch, stream
        )
        each = (1, 1, table.count)
        plan = (items, to_aligned, scratch.partials, scratch.states)
        self._launch("mouth_plan", each, *plan, stream=stream)
        name = "mouth_planes" if restored.planes else "mouth_pictures"
        pictures = (restored.address, aligned.address, scratch.states)
        self._launch(
            name, table.threads(0), items, scratch.masks, *pictures, arena, table.item_pixels, stream=stream
        )

    def match_face(
        self, frames: DeviceFrames, items: int, table: BlendTable, arena: int, scratch: FinishScratch, *,
        stream: object,
    ) -> None:  # fmt: skip
        """The parsed outline laid over the mask, and the colours matched along its edge.

        Args:
            frames: the source; read.
            items: address of the table's items.
            table: what was uploaded there.
            arena: differences and mask; changed.
            scratch: after `parse`.
            stream: where to enqueue.
        """
        window, pixels = table.threads(0), frames.arguments[:3]
        work = (arena, table.item_pixels)
        self._launch("mask_face", window, items, scratch.masks, scratch.states, *work, stream=stream)
        self._reduce("seam_sums", "seam_columns", (*pixels, items, *work), table, scratch, stream)
        limits = (LEAST_WEIGHT, LOWEST, HIGHEST)
        each = (1, 1, table.count)
        self._launch("seam_gains", each, scratch.partials, *limits, scratch.states, stream=stream)
        self._launch("seam_apply", window, *pixels, items, scratch.states, *work, stream=stream)

    def blacken_broken(
        self, frames: DeviceFrames, items: int, table: BlendTable, scratch: FinishScratch, *, stream: object
    ) -> None:
        """Faces of which a network's picture held a value that is no finite number, black in their boxes.

        Args:
            frames: the result; changed.
            items: address of the table's items.
            table: what was uploaded there.
            scratch: after all else.
            stream: where to enqueue.
        """
        work = (*frames.arguments[:3], items, scratch.states)
        self._launch("finish_broken", table.threads(0), *work, stream=stream)

    def _reduce(
        self, parts: str, columns: str, read: Sequence[int], table: BlendTable, scratch: FinishScratch,
        stream: object,
    ) -> None:  # fmt: skip
        """The first two steps of a sum over windows."""
        count = table.count
        self._launch(parts, (_ACROSS, _DOWN, count), *read, scratch.partials, stream=stream)
        self._launch(columns, (_ACROSS, 1, count), scratch.partials, stream=stream)
