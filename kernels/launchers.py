"""Pixel work on the GPU: the same operations as the numpy references, on device addresses, in stream order.

Nothing here waits, allocates or copies. Addresses are integers (`int(allocation)`); tables of items are
device arrays that the caller uploads with the frames. `stream` is a pycuda stream. Launches of fixed size
read the tables when they run, so they can be captured in a CUDA graph and replayed with other tables.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

from dubstream.kernels.blend_table import BlendTable
from dubstream.kernels.face_inputs import FACE, LIPS
from dubstream.kernels.face_mask import FaceMaskShape
from dubstream.kernels.modules import KernelModules
from dubstream.kernels.nv12 import YuvMatrix
from dubstream.kernels.upper_face import SEEN, UPPER_FACE


@dataclass(frozen=True)
class DeviceFrames:
    """A stack of BGR frames on the device, uint8 (count, height, width, 3).

    Attributes:
        address: first byte of the first frame.
        height: pixels.
        width: pixels.
        pitch_bytes: from one row to the next; 3 * width when packed.
        frame_bytes: from one frame to the next; pitch_bytes * height when packed.
    """

    address: int
    height: int
    width: int
    pitch_bytes: int
    frame_bytes: int

    @classmethod
    def packed(cls, address: int, height: int, width: int) -> DeviceFrames:
        """Frames without gaps."""
        return cls(address, height, width, 3 * width, 3 * width * height)

    @property
    def arguments(self) -> tuple[int, int, int, int, int]:
        """As every kernel takes them."""
        return self.address, self.frame_bytes, self.pitch_bytes, self.width, self.height


@dataclass(frozen=True)
class FaceChange:
    """A network's input and output on the device, both pictures or both planes.

    Attributes:
        before, after: addresses of uint8 BGR (count, side, side, 3), or of float32 BGR (count, 3, side, side)
            in [-1, 1].
        side: pixels.
        finite: of planes, the address of uint8 (count, 1), cleared where a change to be added was no finite
            number and the frame stayed as it was; None for pictures, whose bytes always are.
    """

    before: int
    after: int
    side: int
    finite: int | None = None


class Launchers:
    """One method per operation; see the reference of the same name for its meaning.

    Args:
        modules: the device's kernels.

    Every method raises what `KernelModules.launch` raises.
    """

    def __init__(self, modules: KernelModules) -> None:
        self._launch = modules.launch

    def crop_resize(
        self, frames: DeviceFrames, items: int, count: int, out: int, size: tuple[int, int], *, stream: object
    ) -> None:
        """Boxes to pictures of one size.

        Args:
            frames: where to cut.
            items: address of int32 (count, 5): frame, x1, y1, x2, y2.
            count: pictures.
            out: address of uint8 (count, height, width, 3).
            size: width, height of each.
            stream: where to enqueue.
        """
        self._launch("crop_resize", (*size, count), *frames.arguments, items, out, *size, stream=stream)

    def warp_affine(
        self,
        frames: DeviceFrames,
        frame_of: int,
        maps: int,
        count: int,
        out: int,
        size: tuple[int, int],
        *,
        border: tuple[int, int, int] = (0, 0, 0),
        stream: object,
    ) -> None:
        """Affine samples of frames.

        Args:
            frames: where to sample.
            frame_of: address of int32 (count): the frame of each picture.
            maps: address of float64 (count, 2, 3): picture pixel to frame pixel.
            count: pictures.
            out: address of uint8 (count, height, width, 3).
            size: width, height of each.
            border: blue, green, red outside the frame.
            stream: where to enqueue.
        """
        self._launch(
            "warp_affine",
            (*size, count),
            *frames.arguments,
            frame_of,
            maps,
            out,
            *size,
            *border,
            stream=stream,
        )

    def face_pictures(
        self,
        frames: DeviceFrames,
        stabilised: int,
        items: int,
        count: int,
        faces: int,
        references: int,
        *,
        stream: object,
    ) -> None:
        """The masked face and the reference of each item, as pictures.

        Args:
            frames: the source.
            stabilised: address of uint8 (count, 256, 256, 3).
            items: address of int32 (count, 9): frame, crop box, face box.
            count: faces.
            faces: address of uint8 (count, 384, 384, 3); rows 192.. come out black.
            references: address of uint8 (count, 384, 384, 3).
            stream: where to enqueue.
        """
        self._launch(
            "face_pictures",
            (FACE, FACE, count),
            *frames.arguments,
            stabilised,
            items,
            faces,
            references,
            stream=stream,
        )

    def face_planes(
        self, faces: int, references: int, count: int, faces_96: int, references_384: int, *, stream: object
    ) -> None:
        """The networks' float inputs from what `face_pictures` wrote.

        Args:
            faces: address of uint8 (count, 384, 384, 3).
            references: address of uint8 (count, 384, 384, 3).
            count: faces.
            faces_96: address of float32 (count, 6, 96, 96), written in [0, 1].
            references_384: address of float32 (count, 3, 384, 384), written in [0, 1].
            stream: where to enqueue.
        """
        self._launch("lip_planes", (LIPS, LIPS, count), faces, references, faces_96, stream=stream)
        self._launch(
            "picture_planes", (FACE, FACE, count), references, FACE, FACE, references_384, stream=stream
        )

    def paste(
        self,
        frames: DeviceFrames,
        items: int,
        count: int,
        pictures: int,
        size: tuple[int, int],
        *,
        largest: tuple[int, int],
        stream: object,
    ) -> None:
        """Pictures into boxes of frames.

        Args:
            frames: written.
            items: address of int32 (count, 5): frame, x1, y1, x2, y2; boxes of a frame do not overlap.
            count: pictures.
            pictures: address of uint8 (count, height, width, 3).
            size: width, height of each picture.
            largest: width, height no box exceeds.
            stream: where to enqueue.
        """
        self._launch("paste", (*largest, count), *frames.arguments, items, pictures, *size, stream=stream)

    def blend_faces(
        self,
        frames: DeviceFrames,
        items: int,
        table: BlendTable,
        enhanced: int,
        face_size: tuple[int, int],
        arena: int,
        *,
        shape: FaceMaskShape,
        stream: object,
    ) -> None:
        """Synthesised faces into frames, in place.

        Args:
            frames: changed inside the windows only.
            items: address of the table's items, int32 (count, 10).
            table: what was uploaded there; for a captured graph, the largest that will be.
            enhanced: address of float32 (count, 3, height, width), clamped to [0, 1]; a value that is not a
                number is black, so outputs of a network must be checked before.
            face_size: width, height of each face.
            arena: address of `table.arena_bytes` bytes, 16-byte aligned.
            shape: the mask.
            stream: where to enqueue.
        """
        self.start_blend(frames, items, table, enhanced, face_size, arena, shape=shape, stream=stream)
        self.blend_bands(frames, items, table, arena, stream=stream)

    def start_blend(
        self,
        frames: DeviceFrames,
        items: int,
        table: BlendTable,
        enhanced: int,
        face_size: tuple[int, int],
        arena: int,
        *,
        shape: FaceMaskShape,
        stream: object,
    ) -> None:
        """The first step of `blend_faces`, with its arguments: face minus source, and the mask, in the arena.

        `frames` are read only.
        """
        start = (
            *frames.arguments[:3],
            items,
            enhanced,
            *face_size,
            *astuple(shape),
            arena,
            table.item_pixels,
        )
        self._launch("blend_start", table.threads(0), *start, stream=stream)

    def blend_bands(
        self, frames: DeviceFrames, items: int, table: BlendTable, arena: int, *, stream: object
    ) -> None:
        """The rest of `blend_faces`, with its arguments: bands of the arena's differences into the frames."""
        work = (items, arena, table.item_pixels)
        for level in range(table.levels - 1):
            self._launch("blend_reduce", table.threads(level + 1), *work, level, stream=stream)
        for level in range(table.levels):
            self._launch("blend_band", table.threads(level), *work, level, stream=stream)
        for level in reversed(range(table.levels - 1)):
            self._launch("blend_collapse", table.threads(level), *work, level, stream=stream)
        self._launch("blend_finish", table.threads(0), *frames.arguments[:3], *work, stream=stream)

    def upper_face_planes(
        self, frames: DeviceFrames, items: int, count: int, planes: int, finite: int, *, stream: object
    ) -> None:
        """Faces as the emotion network takes them in float32.

        Args:
            frames: the source.
            items: address of int32 (count, 5): frame, face box.
            count: faces.
            planes: address of float32 (count, 3, 128, 128), written BGR in [-1, 1].
            finite: address of uint8 (count, 1), written 1; see `change_upper_faces`.
            stream: where to enqueue.
        """
        threads = (SEEN, SEEN, count)
        self._launch("upper_face_planes", threads, *frames.arguments, items, planes, finite, stream=stream)

    def change_upper_faces(
        self,
        frames: DeviceFrames,
        items: int,
        count: int,
        change: FaceChange,
        strength: float,
        *,
        largest: tuple[int, int],
        shape: FaceMaskShape = UPPER_FACE,
        stream: object,
    ) -> None:
        """What a network changed, added to the upper faces in place.

        Args:
            frames: written inside the boxes only.
            items: address of int32 (count, 5): frame, face box inside it; boxes of a frame do not overlap.
            count: faces.
            change: the network's pictures.
            strength: factor of the change.
            largest: width, height no box exceeds.
            shape: where it shows.
            stream: where to enqueue.
        """
        rows = math.ceil((1 - shape.bottom) * largest[1])  # nothing shows below
        threads = (largest[0], max(rows, 1), count)
        where = (*frames.arguments[:3], items, change.before, change.after, change.side, strength)
        if change.finite is None:
            self._launch("change_by_pictures", threads, *where, *astuple(shape), stream=stream)
        else:
            self._launch("change_by_planes", threads, *where, *astuple(shape), change.finite, stream=stream)

    def nv12_to_bgr(
        self,
        luma: int,
        chroma: int,
        pitch_bytes: int,
        size: tuple[int, int],
        matrix: YuvMatrix,
        picture: int,
        *,
        stream: object,
    ) -> None:
        """One decoded surface to a packed BGR picture.

        Args:
            luma: address of the luma rows.
            chroma: address of the chroma rows.
            pitch_bytes: from one row to the next, of both.
            size: width, height in luma samples.
            matrix: the video's matrix and range.
            picture: address of uint8 (height, width, 3).
            stream: where to enqueue.
        """
        colours = (matrix.red, matrix.blue, int(matrix.full_range))
        self._launch(
            "nv12_to_bgr", (*size, 1), luma, chroma, pitch_bytes, *size, *colours, picture, stream=stream
        )

    def bgr_to_nv12(
        self,
        picture: int,
        size: tuple[int, int],
        matrix: YuvMatrix,
        luma: int,
        chroma: int,
        pitch_bytes: int,
        *,
        stream: object,
    ) -> None:
        """One packed BGR picture to a surface for an encoder; arguments as for `nv12_to_bgr`."""
        pairs = ((size[0] + 1) // 2, (size[1] + 1) // 2, 1)
        colours = (matrix.red, matrix.blue, int(matrix.full_range))
        self._launch("bgr_to_nv12", pairs, picture, *size, *colours, luma, chroma, pitch_bytes, stream=stream)
