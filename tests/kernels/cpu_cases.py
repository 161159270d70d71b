"""Kernels against their references. Run by pytest, and as a script under the address sanitizer."""

from __future__ import annotations

import platform
import sys
from itertools import product
from pathlib import Path

import cpu_kernels
import numpy as np
from kernels_reference import noise_picture, random_box

from dubstream.kernels.blend import BlendSettings, blend_face
from dubstream.kernels.blend_table import BlendTable, blend_table
from dubstream.kernels.boxes import cut
from dubstream.kernels.face_inputs import face_inputs
from dubstream.kernels.face_mask import FaceMaskShape
from dubstream.kernels.launchers import DeviceFrames, FaceChange, Launchers
from dubstream.kernels.nv12 import BT601, BT601_FULL, BT709, BT709_FULL, bgr_to_nv12, nv12_to_bgr
from dubstream.kernels.paste import paste
from dubstream.kernels.planes import BGR_SIGNED, to_planes
from dubstream.kernels.resample import crop_resize, warp_affine
from dubstream.kernels.upper_face import SEEN, UPPER_FACE, change_upper_face

SIZES = [(1, 1), (1, 9), (7, 2), (31, 45), (64, 33), (90, 121)]  # height, width
NOBODY = object()  # the stream: these launches run at once


def address(array: np.ndarray) -> int:
    assert array.flags.c_contiguous
    return array.ctypes.data


def frames_with_gaps(rng: np.random.Generator, count: int, height: int, width: int):
    """Frames whose rows and planes are further apart than they need be, as decoders leave them."""
    pitch, rows = 3 * width + 5, height + 2
    memory = rng.integers(0, 256, (count, rows, pitch), dtype=np.uint8)
    return memory, DeviceFrames(address(memory), height, width, pitch, pitch * rows)


def views(memory: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels of `frames_with_gaps`, so that kernels and references see the same bytes."""
    pixels = memory[:, :height, : 3 * width].reshape(len(memory), height, width, 3)
    assert np.shares_memory(pixels, memory)
    return pixels


def assert_same_bytes(found: np.ndarray, expected: np.ndarray) -> None:
    """OpenCV's x86 builds follow one rule to the bit; its other builds may round the last level otherwise."""
    worst = int(np.abs(found.astype(int) - expected).max(initial=0))
    assert worst <= (0 if platform.machine() in ("x86_64", "AMD64") else 1), worst


def case_crop_resize(kernels: Launchers) -> None:
    for seed, (height, width) in enumerate(SIZES):
        rng = np.random.default_rng(seed)
        memory, frames = frames_with_gaps(rng, 3, height, width)
        pictures = views(memory, height, width)
        boxes = [random_box(rng, width, height) for _ in range(4)]
        boxes += [(-3, -4, width + 2, height + 5), (width - 1, height - 1, width + 6, height + 1)]
        items = np.array([(index % 3, *box) for index, box in enumerate(boxes)], np.int32)
        for size in [(1, 1), (13, 29), (width * 2, height * 3)]:
            out = np.empty((len(items), size[1], size[0], 3), np.uint8)
            kernels.crop_resize(frames, address(items), len(items), address(out), size, stream=NOBODY)
            for found, item in zip(out, items, strict=True):
                assert_same_bytes(found, crop_resize(pictures[item[0]], item[1:], np.empty_like(found)))


def case_warp_affine(kernels: Launchers) -> None:
    border = (135, 133, 132)
    for seed, (height, width) in enumerate(SIZES):
        rng = np.random.default_rng(seed)
        memory, frames = frames_with_gaps(rng, 2, height, width)
        pictures = views(memory, height, width)
        angles, scales = rng.uniform(-3, 3, 5), rng.uniform(0.3, 3, 5)
        shifts = rng.uniform(-5, [width + 5, height + 5], (5, 2))
        turns = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)], -1)
        maps = np.concatenate([(turns * scales[:, None]).reshape(5, 2, 2), shifts[:, :, None]], 2)
        maps[0] = [[1, 0, 0], [0, 1, 0]]
        frame_of = (np.arange(5) % 2).astype(np.int32)
        out = np.empty((5, 37, 51, 3), np.uint8)
        kernels.warp_affine(
            frames, address(frame_of), address(maps), 5, address(out), (51, 37), border=border, stream=NOBODY
        )
        for found, frame, to_frame in zip(out, frame_of, maps, strict=True):
            expected = warp_affine(pictures[frame], to_frame, np.empty_like(found), border=border)
            assert_same_bytes(found, expected)


def case_face_inputs(kernels: Launchers) -> None:
    for seed, (height, width) in enumerate([(90, 121), (41, 37)]):
        rng = np.random.default_rng(seed)
        memory, frames = frames_with_gaps(rng, 2, height, width)
        pictures = views(memory, height, width)
        stabilised = rng.integers(0, 256, (4, 256, 256, 3), dtype=np.uint8)
        items = np.array(
            [
                (1, *random_box(rng, width, height), *random_box(rng, width, height)),
                (0, 0, 0, width, height, -6, 5, width - 4, height + 7),
                (0, width // 4, height // 4, width // 2, height // 2, 2, 3, width - 3, height - 2),
                (1, 0, 0, 5, 5, width - 1, height - 1, width, height),
            ],
            np.int32,
        )
        faces, references = (np.empty((4, 384, 384, 3), np.uint8) for _ in range(2))
        faces_96, planes = np.empty((4, 6, 96, 96), np.float32), np.empty((4, 3, 384, 384), np.float32)
        kernels.face_pictures(
            frames, address(stabilised), address(items), 4, address(faces), address(references), stream=NOBODY
        )
        kernels.face_planes(
            address(faces), address(references), 4, address(faces_96), address(planes), stream=NOBODY
        )
        assert (faces[:, 192:] == 0).all()
        for index, item in enumerate(items):
            wanted = {
                "faces_96": np.empty((6, 96, 96), np.float32),
                "reference_384": np.empty((3, 384, 384), np.float32),
            }
            face_inputs(pictures[item[0]], stabilised[index], item[1:5], item[5:], **wanted)
            assert_same_bytes(np.rint(planes[index] * 255), np.rint(wanted["reference_384"] * 255))
            assert np.abs(planes[index] - wanted["reference_384"]).max() <= 1 / 250
            assert np.abs(faces_96[index] - wanted["faces_96"]).max() < 1e-6


def case_paste(kernels: Launchers) -> None:
    for seed, (height, width) in enumerate(SIZES):
        rng = np.random.default_rng(seed)
        memory, frames = frames_with_gaps(rng, 3, height, width)
        boxes = [random_box(rng, width, height), (-5, -3, width + 4, height + 1), (width, 0, width + 3, 4)]
        items = np.array([(index, *box) for index, box in enumerate(boxes)], np.int32)
        pictures = rng.integers(0, 256, (3, 19, 23, 3), dtype=np.uint8)
        expected = memory.copy()
        for picture, item in zip(pictures, items, strict=True):
            paste(views(expected, height, width)[item[0]], picture, item[1:])
        kernels.paste(
            frames,
            address(items),
            3,
            address(pictures),
            (23, 19),
            largest=(width + 9, height + 4),
            stream=NOBODY,
        )
        assert_same_bytes(memory, expected)


def case_nv12(kernels: Launchers) -> None:
    for seed, (height, width) in enumerate(SIZES):
        rng = np.random.default_rng(seed)
        for matrix in (BT601, BT601_FULL, BT709, BT709_FULL):
            pitch, rows = width + 1 + 4, (height + 1) // 2
            surface = rng.integers(0, 256, (height + rows, pitch), dtype=np.uint8)
            luma, chroma = surface[:height], surface[height:]
            pairs = chroma[:, : 2 * ((width + 1) // 2)]
            picture = np.empty((height, width, 3), np.uint8)
            planes = (address(luma), address(chroma), pitch)
            kernels.nv12_to_bgr(*planes, (width, height), matrix, address(picture), stream=NOBODY)
            decoded = nv12_to_bgr(luma[:, :width], pairs, matrix, out=np.empty_like(picture))
            assert (picture == decoded).all()

            picture = noise_picture(rng, height, width)
            expected = surface.copy()
            bgr_to_nv12(
                picture, matrix, luma=expected[:height, :width], chroma=expected[height:, : pairs.shape[1]]
            )
            kernels.bgr_to_nv12(address(picture), (width, height), matrix, *planes, stream=NOBODY)
            assert (surface == expected).all()  # the gaps behind the rows too


def launch_blend(
    kernels: Launchers, frames: DeviceFrames, table: BlendTable, enhanced: np.ndarray, shape: FaceMaskShape
) -> None:
    """`enhanced`: float32 (faces, 3, height, width). The arena holds nothing that could pass for a result."""
    arena = np.full(table.arena_bytes // 4, np.nan, np.float32)
    size = enhanced.shape[3], enhanced.shape[2]
    items, faces = address(table.items), address(enhanced)
    kernels.blend_faces(frames, items, table, faces, size, address(arena), shape=shape, stream=NOBODY)


def blend_and_compare(
    kernels: Launchers, rng: np.random.Generator, size: tuple[int, int], faces, settings: BlendSettings
) -> None:
    """`faces`: frame and box of each; the reference blends them one by one into the same frames."""
    height, width = size
    count = 1 + max(frame for frame, _ in faces)
    memory, frames = frames_with_gaps(rng, count, height, width)
    source = memory.copy()
    enhanced = (rng.random((len(faces), 3, 40, 48)) * 1.4 - 0.2).astype(np.float32)
    table = blend_table([frame for frame, _ in faces], [box for _, box in faces], width, height, settings)
    launch_blend(kernels, frames, table, enhanced, settings.mask)
    expected = source.copy()
    kept = np.ones(memory.shape[:1] + size, bool)
    for face, (frame, box) in zip(enhanced, faces, strict=True):
        window = blend_face(views(expected, height, width)[frame], face, box, settings=settings)
        kept[frame][cut(window, (0, 0, 0, 0))] = False
    change = np.abs(memory.astype(int) - expected)
    assert change.max() <= 1
    assert np.count_nonzero(change) <= 2 + memory.size // 10_000  # sums in another order, rounded at a tie
    assert (views(memory, height, width)[kept] == views(source, height, width)[kept]).all()


def case_blend(kernels: Launchers) -> None:
    rng = np.random.default_rng(0)
    usual = BlendSettings()
    deep = BlendSettings(coarsest=1 / 4)
    blend_and_compare(kernels, rng, (120, 151), [(0, (20, 10, 131, 115)), (1, (60, 40, 76, 57))], usual)
    blend_and_compare(kernels, rng, (97, 83), [(0, (-20, 30, 60, 110)), (1, (0, 0, 83, 97))], deep)
    blend_and_compare(
        kernels, rng, (33, 29), [(0, (3, 4, 4, 5)), (2, (5, 5, 27, 31)), (1, (28, 0, 29, 33))], deep
    )
    blend_and_compare(kernels, rng, (50, 141), [(0, (2, 2, 42, 44)), (0, (90, 3, 139, 50))], usual)
    blend_and_compare(kernels, rng, (1, 1), [(0, (0, 0, 1, 1))], usual)
    blend_and_compare(kernels, rng, (64, 64), [(0, (8, 12, 56, 52))], usual)  # the face's own size


def case_blend_of_nothing(kernels: Launchers) -> None:
    """An empty mask leaves every byte; so does a prediction equal to the source."""
    rng = np.random.default_rng(1)
    nothing = BlendSettings(FaceMaskShape(top=1, top_feather=0, bottom=0, bottom_feather=0), coarsest=1 / 4)
    for settings, same in ((nothing, False), (BlendSettings(coarsest=1 / 4), True)):
        frame = noise_picture(rng, 60, 70)
        before = frame.copy()
        enhanced = rng.random((1, 3, 40, 48), dtype=np.float32)
        if same:
            enhanced[0] = frame[10:50, 12:60].transpose(2, 0, 1) / np.float32(255)
        table = blend_table([0], [(12, 10, 60, 50)], 70, 60, settings)
        where = DeviceFrames.packed(address(frame), 60, 70)
        launch_blend(kernels, where, table, enhanced, settings.mask)
        assert (frame == before).all()


def case_values_that_are_no_numbers(kernels: Launchers) -> None:
    """They become black, and nothing undefined happens on the way."""
    frame = np.full((60, 70, 3), 90, np.uint8)
    enhanced = np.full((1, 3, 40, 48), np.nan, np.float32)
    table = blend_table([0], [(12, 10, 60, 50)], 70, 60)
    where = DeviceFrames.packed(address(frame), 60, 70)
    launch_blend(kernels, where, table, enhanced, FaceMaskShape())
    assert (frame[40:44, 30:40] == 0).all()


def inner_boxes(rng: np.random.Generator, size: tuple[int, int], count: int) -> np.ndarray:
    """Items of boxes inside their frames, one frame each; the last is its whole frame."""
    height, width = size
    boxes = [random_box(rng, width, height) for _ in range(count - 1)]
    inside = [(x1, y1, min(x2, width), min(y2, height)) for x1, y1, x2, y2 in boxes]
    return np.array([(index, *box) for index, box in enumerate([*inside, (0, 0, width, height)])], np.int32)


def case_upper_face_planes(kernels: Launchers) -> None:
    for seed, (height, width) in enumerate(SIZES):
        rng = np.random.default_rng(seed)
        memory, frames = frames_with_gaps(rng, 3, height, width)
        items = inner_boxes(rng, (height, width), 3)
        out, finite = np.empty((3, 3, SEEN, SEEN), np.float32), np.zeros((3, 1), np.uint8)
        kernels.upper_face_planes(frames, address(items), 3, address(out), address(finite), stream=NOBODY)
        assert (finite == 1).all()
        for found, item in zip(out, items, strict=True):
            face = crop_resize(
                views(memory, height, width)[item[0]], item[1:], np.empty((384, 384, 3), np.uint8)
            )
            expected = to_planes(face[1::3, 1::3], BGR_SIGNED, out=np.empty_like(found))
            assert_same_bytes(np.rint((found + 1) * 127.5), np.rint((expected + 1) * 127.5))
            assert np.abs(found - expected).max() <= 1 / 100


def network_faces(
    rng: np.random.Generator, count: int, side: int, *, planes: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A network's input and output; their difference goes far beyond what a frame can show."""
    if planes:
        pair = (rng.uniform(-1, 1, (count, 3, side, side)).astype(np.float32) for _ in range(2))
    else:
        pair = (rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8) for _ in range(2))
    before, after = pair
    return before, after


def levels_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What `change_upper_face` takes."""
    change = after.astype(np.float32) - before
    return (
        change
        if before.dtype == np.uint8
        else np.ascontiguousarray(change.transpose(1, 2, 0) * np.float32(127.5))
    )


WHOLE_FACE = FaceMaskShape(top=0, top_feather=0, side=0, side_feather=0, bottom=0.1, bottom_feather=0.1)


def case_change_upper_faces(kernels: Launchers) -> None:
    frame_sizes = [*SIZES, (200, 223)]
    ways = ((True, 1.0, UPPER_FACE), (False, 0.3, UPPER_FACE), (True, 0.8, WHOLE_FACE))
    differing = total = 0
    for seed, (size, (planes, strength, shape)) in enumerate(product(frame_sizes, ways)):
        rng = np.random.default_rng(seed)
        memory, frames = frames_with_gaps(rng, 3, *size)
        before_launch, items = memory.copy(), inner_boxes(rng, size, 3)
        before, after = network_faces(rng, 3, SEEN if planes else 96, planes=planes)
        finite = np.ones((3, 1), np.uint8)
        kernels.change_upper_faces(
            frames,
            address(items),
            3,
            FaceChange(address(before), address(after), before.shape[2], address(finite) if planes else None),
            strength,
            largest=(size[1], size[0]),
            shape=shape,
            stream=NOBODY,
        )
        assert (finite == 1).all()
        expected = before_launch.copy()
        for one, other, item in zip(before, after, items, strict=True):
            frame = views(expected, *size)[item[0]]
            change_upper_face(frame, levels_between(one, other), item[1:], strength, shape=shape)
        change = np.abs(memory.astype(int) - expected)
        assert change.max() <= 1
        differing, total = differing + np.count_nonzero(change), total + change.size
    assert differing <= 2 + total // 10_000  # products in another order, rounded at a tie


def case_changes_that_are_no_numbers(kernels: Launchers) -> None:
    """They are told, for the face that has them, and its frame keeps those bytes."""
    rng = np.random.default_rng(3)
    frame = np.stack([noise_picture(rng, 90, 80)] * 3)
    source, where = frame.copy(), DeviceFrames.packed(address(frame), 90, 80)
    items = np.array([(index, 4, 5, 74, 85) for index in range(3)], np.int32)
    before = np.zeros((3, 3, SEEN, SEEN), np.float32)
    after, finite = before.copy(), np.ones((3, 1), np.uint8)
    after[0, 0, 20:30, 50:60], after[2, 2, 40, 64:70] = np.inf, np.nan
    after[1, :, 100:] = np.nan  # below what shows
    faces = FaceChange(address(before), address(after), SEEN, address(finite))
    kernels.change_upper_faces(where, address(items), 3, faces, 1.0, largest=(70, 80), stream=NOBODY)
    assert finite[:, 0].tolist() == [0, 1, 0]
    assert (frame == source).all()


def case_planted_overrun(kernels: Launchers) -> None:
    """One pixel more than the output holds: proves that the sanitizer sees what kernels do."""
    frame, out = np.zeros((40, 40, 3), np.uint8), np.empty(3 * 1000 - 3, np.uint8)
    items = np.array([(0, 0, 0, 40, 40)], np.int32)
    where = DeviceFrames.packed(address(frame), 40, 40)
    kernels.crop_resize(where, address(items), 1, address(out), (50, 20), stream=NOBODY)


CASES = [
    case_crop_resize,
    case_warp_affine,
    case_face_inputs,
    case_paste,
    case_nv12,
    case_blend,
    case_blend_of_nothing,
    case_values_that_are_no_numbers,
    case_upper_face_planes,
    case_change_upper_faces,
    case_changes_that_are_no_numbers,
]


if __name__ == "__main__":
    launchers = Launchers(cpu_kernels.modules(Path(sys.argv[1])))
    chosen = [globals()[sys.argv[2]]] if len(sys.argv) > 2 else CASES
    for case in chosen:
        case(launchers)
    print(f"{len(chosen)} cases")
