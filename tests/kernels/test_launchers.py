from __future__ import annotations

import math

import numpy as np
import pytest

from dubstream.engines.errors import DeviceError, InternalError
from dubstream.kernels import modules
from dubstream.kernels.blend_table import blend_table
from dubstream.kernels.face_mask import FaceMaskShape
from dubstream.kernels.launchers import DeviceFrames, FaceChange, Launchers
from dubstream.kernels.modules import BLOCK, KernelModules
from dubstream.kernels.nv12 import BT709
from dubstream.kernels.sources import SUBJECTS, signatures


class RecordingFunction:
    def __init__(self, name: str, calls: list) -> None:
        self.name, self.calls, self.letters = name, calls, ""

    def prepare(self, arg_types: str) -> None:
        self.letters = arg_types

    def prepared_async_call(self, grid, block, stream, *args) -> None:
        assert len(args) == len(self.letters), self.name
        self.calls.append((self.name, grid, block, stream, args))


class RecordingModule:
    def __init__(self, calls: list) -> None:
        self.calls = calls

    def get_function(self, name: str) -> RecordingFunction:
        return RecordingFunction(name, self.calls)


@pytest.fixture
def calls() -> list:
    return []


@pytest.fixture
def launchers(calls: list) -> Launchers:
    return Launchers(KernelModules(lambda subject: b"", load=lambda code: RecordingModule(calls)))


FRAMES = DeviceFrames(1000, height=720, width=1280, pitch_bytes=4096, frame_bytes=4096 * 720)
STREAM = object()


def test_every_cubin_is_loaded_once_and_every_kernel_prepared() -> None:
    loaded: list[bytes] = []

    def load(code: bytes) -> RecordingModule:
        loaded.append(code)
        return RecordingModule([])

    found = KernelModules(lambda subject: subject.encode(), load=load)
    assert loaded == [subject.encode() for subject in SUBJECTS]
    expected = {name: letters for subject in SUBJECTS for name, letters in signatures(subject).items()}
    assert {name: function.letters for name, function in found._functions.items()} == expected


def test_a_launch_covers_every_thread_on_the_given_stream(launchers: Launchers, calls: list) -> None:
    launchers.crop_resize(FRAMES, 2000, 7, 3000, (385, 97), stream=STREAM)
    (name, grid, block, stream, args) = calls[0]
    assert (name, grid, block) == ("crop_resize", (13, 13, 7), BLOCK)
    assert stream is STREAM
    assert args == (1000, 4096 * 720, 4096, 1280, 720, 2000, 3000, 385, 97)


def test_packed_frames_have_no_gaps() -> None:
    assert DeviceFrames.packed(5, 10, 20) == DeviceFrames(5, 10, 20, 60, 600)


def test_every_operation_launches_with_matching_arguments(launchers: Launchers, calls: list) -> None:
    launchers.warp_affine(FRAMES, 1, 2, 4, 3, (256, 256), border=(135, 133, 132), stream=STREAM)
    launchers.face_pictures(FRAMES, 1, 2, 4, 5, 6, stream=STREAM)
    launchers.face_planes(1, 2, 4, 5, 6, stream=STREAM)
    launchers.paste(FRAMES, 1, 4, 2, (384, 384), largest=(300, 310), stream=STREAM)
    launchers.nv12_to_bgr(1, 2, 2048, (1279, 719), BT709, 3, stream=STREAM)
    launchers.bgr_to_nv12(3, (1279, 719), BT709, 1, 2, 2048, stream=STREAM)
    launchers.upper_face_planes(FRAMES, 1, 4, 2, 3, stream=STREAM)
    for finite in (4, None):
        face = FaceChange(2, 3, 128, finite)
        launchers.change_upper_faces(FRAMES, 1, 4, face, 0.5, largest=(300, 310), stream=STREAM)
    assert [(name, grid) for name, grid, *_ in calls] == [
        ("warp_affine", (8, 32, 4)),
        ("face_pictures", (12, 48, 4)),
        ("lip_planes", (3, 12, 4)),
        ("picture_planes", (12, 48, 4)),
        ("paste", (10, 39, 4)),
        ("nv12_to_bgr", (40, 90, 1)),
        ("bgr_to_nv12", (20, 45, 1)),
        ("upper_face_planes", (4, 16, 4)),
        # Nothing shows below 0.56 of a box: 174 of 310 rows.
        ("change_by_planes", (10, 22, 4)),
        ("change_by_pictures", (10, 22, 4)),
    ]
    assert calls[6][4] == (3, 1279, 719, 0.2126, 0.0722, 0, 1, 2, 2048)


def test_a_blend_goes_down_the_pyramid_and_up_again(launchers: Launchers, calls: list) -> None:
    table = blend_table([0, 1], [(100, 100, 201, 210), (500, 300, 800, 600)], 1280, 720)
    launchers.blend_faces(FRAMES, 1, table, 2, (384, 384), 3, shape=FaceMaskShape(), stream=STREAM)
    assert table.levels == 4
    assert table.largest == (356, 356)
    order = [(name[6:], args[-1]) for name, _, _, _, args in calls[1:-1]]
    down = [("reduce", level) for level in range(3)]
    bands = [("band", level) for level in range(4)]
    up = [("collapse", level) for level in (2, 1, 0)]
    assert order == down + bands + up
    assert [calls[0][0], calls[-1][0]] == ["blend_start", "blend_finish"]
    widths = {level: math.ceil(356 / 2**level) for level in range(4)}
    for name, grid, _, _, args in calls[1:-1]:
        level = args[-1] + 1 if name == "blend_reduce" else args[-1]
        assert grid == (math.ceil(widths[level] / 32), math.ceil(widths[level] / 8), 2)


def test_blend_table_holds_boxes_windows_and_room() -> None:
    table = blend_table([3], np.array([[0, 4, 100, 130]]), 200, 131)
    assert table.items.tolist() == [[3, 0, 4, 100, 130, 0, 0, 112, 131, 3]]
    assert table.item_pixels == 112 * 131 + 56 * 66 + 28 * 33
    assert table.arena_bytes == 16 * table.item_pixels
    with pytest.raises(InternalError, match="overlap"):
        blend_table([0, 0], [(0, 0, 50, 50), (40, 40, 90, 90)], 200, 131)
    with pytest.raises(InternalError, match="one each"):
        blend_table([0], [], 200, 131)


def test_launches_without_threads_or_beyond_the_grid_are_refused(launchers: Launchers, calls: list) -> None:
    with pytest.raises(InternalError, match="1 or more"):
        launchers.crop_resize(FRAMES, 1, 0, 2, (384, 384), stream=STREAM)
    with pytest.raises(InternalError, match="at most 65535"):
        launchers.crop_resize(FRAMES, 1, 65536, 2, (384, 384), stream=STREAM)
    assert calls == []


def test_a_refused_launch_names_kernel_and_grid(
    launchers: Launchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("cuLaunchKernel failed: invalid device context")

    monkeypatch.setattr(RecordingFunction, "prepared_async_call", refuse)
    with pytest.raises(DeviceError, match=r"lip_planes on a grid of \(3, 12, 2\).*invalid device context"):
        launchers.face_planes(1, 2, 2, 3, 4, stream=STREAM)


def test_without_pycuda_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", None)
    with pytest.raises(DeviceError, match="pip install"):
        modules.load_with_pycuda(b"")
