"""Probing and exact reading over the kinds of video that occur."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import Clip, Sound, make_video, number_of, picture

from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import VideoInfo, probe_video
from dubstream.runtime.media.reader import VideoReader

LIMITS = MediaLimits()
NTSC = Fraction(30000, 1001)
QUICK = {"preset": "ultrafast", "crf": "4"}
REFRESH = {**QUICK, "g": "6", "x264-params": "intra-refresh=1:bframes=0"}
MPEG = {"qscale": "2", "bf": "2", "g": "6"}
X265 = {"preset": "ultrafast", "x265-params": "keyint=6:log-level=none"}
HIDDEN_FRAMES = {"cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "8", "b": "2M"}
VP9 = {"cpu-used": "8", "g": "6", "crf": "10", "b": "0"}
B_FRAMES = {"preset": "veryfast", "crf": "4", "bf": "3", "g": "6"}

MATRIX = {
    "plain.mp4": Clip(),
    "one.mp4": Clip(frames=1),
    "two.mkv": Clip(frames=2),
    "b_frames_edit_list.mp4": Clip(frames=30, options=B_FRAMES),
    "open_gop.mp4": Clip(frames=30, options={**B_FRAMES, "x264-params": "open-gop=1"}),
    "intra_refresh.mp4": Clip(frames=30, options=REFRESH),
    "b_frames.mkv": Clip(frames=30, options=B_FRAMES),
    "b_frames.ts": Clip(frames=30, options=B_FRAMES),
    "b_frames.avi": Clip(frames=30, options=B_FRAMES),
    "b_frames.flv": Clip(frames=30, options=B_FRAMES),
    "mpeg4_b.avi": Clip(frames=20, codec="mpeg4", options=MPEG),
    "mpeg4_b.mp4": Clip(frames=20, codec="mpeg4", options=MPEG),
    "mpeg2.mpg": Clip(frames=20, codec="mpeg2video", options=MPEG),
    "hevc.mp4": Clip(frames=20, codec="libx265", options=X265),
    "vp8.webm": Clip(frames=20, codec="libvpx", options=HIDDEN_FRAMES),
    "vp9.webm": Clip(frames=20, codec="libvpx-vp9", options=VP9),
    "fragmented.mp4": Clip(frames=30, options=B_FRAMES, container={"movflags": "frag_keyframe+empty_moov"}),
    "live.webm": Clip(frames=20, codec="libvpx-vp9", options=VP9, container={"live": "1"}),
    "blu_ray.m2ts": Clip(frames=20, options=B_FRAMES),
    "mjpeg.mov": Clip(codec="mjpeg", pix_fmt="yuvj420p", options={"qscale": "2"}),
    "ffv1_rgb.mkv": Clip(codec="ffv1", pix_fmt="bgr0", options={}),
    "odd_444.mp4": Clip(width=97, height=63, pix_fmt="yuv444p"),
    "odd.webm": Clip(width=97, height=63, codec="libvpx-vp9", options=VP9),
    "422.mp4": Clip(pix_fmt="yuv422p"),
    "ten_bit.mp4": Clip(pix_fmt="yuv420p10le"),
    "full_709.mp4": Clip(colour=(1, True)),
    "limited_2020.mp4": Clip(colour=(9, False), pix_fmt="yuv420p10le"),
    "interlaced.mp4": Clip(options={**QUICK, "x264-params": "interlaced=1"}),
    "sound.mp4": Clip(sounds=(Sound(seconds=0.48),)),
    "two_sounds.mkv": Clip(sounds=(Sound(seconds=0.48), Sound(seconds=0.48, layout="mono", rate=16000))),
    "film.mp4": Clip(rate=Fraction(24000, 1001)),
    "film.mkv": Clip(frames=40, rate=Fraction(24000, 1001)),
    "ntsc.mkv": Clip(frames=40, rate=NTSC),
    "ntsc60.mp4": Clip(rate=2 * NTSC),
}  # fmt: skip


def read_all(info: VideoInfo) -> list[np.ndarray]:
    with VideoReader(info, LIMITS) as reader:
        return [shown for _, shown in reader.frames()]


@pytest.mark.parametrize("name", MATRIX)
def test_every_kind_gives_its_frames_exactly(tmp_path: Path, name: str) -> None:
    clip = MATRIX[name]
    info = probe_video(make_video(tmp_path / name, clip), LIMITS)
    shown = read_all(info)
    assert [number_of(one) for one in shown] == list(range(clip.frames))
    assert (info.width, info.height, info.frame_count) == (clip.width, clip.height, clip.frames)
    assert all(one.shape == (clip.height, clip.width, 3) and one.flags["C_CONTIGUOUS"] for one in shown)
    assert info.rate == clip.rate
    assert info.has_audio == bool(clip.sounds)
    wanted_s = np.arange(clip.frames) / float(clip.rate)
    np.testing.assert_allclose(info.times_s, wanted_s, atol=0.0011)
    assert list(info.plan(LIMITS)) == list(range(clip.frames))
    smooth = (slice(clip.height // 2 + 4, None), slice(4, -4))
    original = picture(3 % clip.frames, clip.width, clip.height)
    assert np.abs(shown[3 % clip.frames][smooth].astype(int) - original[smooth]).mean() < 4


STARTS = ("b_frames_edit_list.mp4", "open_gop.mp4", "intra_refresh.mp4", "b_frames.mkv", "b_frames.avi",
          "hevc.mp4", "vp9.webm", "mpeg2.mpg")  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_a_frame_has_the_same_pixels_from_wherever_reading_starts(tmp_path: Path, name: str) -> None:
    info = probe_video(make_video(tmp_path / name, MATRIX[name]), LIMITS)
    whole = read_all(info)
    for start in range(info.frame_count):
        with VideoReader(info, LIMITS) as reader:
            for index, shown in reader.frames(start, min(start + 2, info.frame_count)):
                assert np.array_equal(shown, whole[index]), (start, index)


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("ccw", [0, 90, 180, 270])
def test_rotation_and_mirroring_are_applied(tmp_path: Path, ccw: int, hflip: bool) -> None:
    clip = Clip(frames=2, rotate_ccw=ccw, hflip=hflip)
    info = probe_video(make_video(tmp_path / "turned.mp4", clip), LIMITS)
    upright = probe_video(make_video(tmp_path / "plain.mp4", Clip(frames=2)), LIMITS)
    stored = read_all(upright)[0]
    wanted = np.rot90(stored, k=ccw // 90)  # PyAV's flip comes after its turn
    wanted = wanted[:, ::-1] if hflip else wanted
    shown = read_all(info)[0]
    assert shown.shape == (info.height, info.width, 3)
    np.testing.assert_array_equal(shown, wanted)


def test_a_turn_by_other_angles_is_refused(tmp_path: Path) -> None:
    from dubstream.engines.errors import MediaError

    with pytest.raises(MediaError, match="multiple of 90"):
        probe_video(make_video(tmp_path / "skew.mp4", Clip(frames=2, rotate_ccw=30)), LIMITS)


def test_frames_dropped_from_a_grid_are_held_at_the_grids_rate(tmp_path: Path) -> None:
    # Like the phone recording this project measures on: 30 fps nominal, two frames of three kept.
    slots = [0, 2, 3, 4, 6, 7, 8, 10, 11, 13]
    clip = Clip(frames=len(slots), rate=Fraction(30), stamps=[512 * s + 507 for s in slots],
                time_base=Fraction(1, 15360))  # fmt: skip
    info = probe_video(make_video(tmp_path / "uneven.mp4", clip), LIMITS)
    assert info.rate == 30
    assert list(info.plan(LIMITS)) == [0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 8, 9]


def test_jittered_stamps_are_read_at_the_nearest_standard_rate(tmp_path: Path) -> None:
    jitter = np.random.default_rng(5).integers(-9, 10, 40)
    stamps = [round(k * 1000 / 25) + int(j) for k, j in enumerate(jitter)]
    stamps = [s - stamps[0] for s in stamps]
    clip = Clip(frames=40, stamps=stamps, time_base=Fraction(1, 1000), options={**QUICK, "bf": "0"})
    info = probe_video(make_video(tmp_path / "jitter.mkv", clip), LIMITS)
    plan = info.plan(LIMITS)
    assert info.rate == 25
    off_s = np.arange(len(plan))[np.unique(plan, return_index=True)[1]] / 25 - info.times_s[np.unique(plan)]
    assert np.abs(off_s).max() <= 0.5 / 25 + 1e-9


def test_negative_and_late_starts_begin_at_zero(tmp_path: Path) -> None:
    # An MP4 cuts what lies before zero with its edit list: those frames are not shown.
    for name, first, shown in (
        ("late.mkv", 70, range(6)),
        ("late.mp4", 70, range(6)),
        ("cut.mp4", -2, range(2, 6)),
    ):
        clip = Clip(frames=6, stamps=[first + k for k in range(6)], time_base=Fraction(1, 25))
        info = probe_video(make_video(tmp_path / name, clip), LIMITS)
        assert info.times_s[0] == 0.0
        assert list(info.plan(LIMITS)) == list(range(len(shown)))
        assert [number_of(one) for one in read_all(info)] == list(shown)


def test_colour_tags_and_sample_aspect_are_reported(tmp_path: Path) -> None:
    tagged = probe_video(make_video(tmp_path / "t.mp4", Clip(frames=2, colour=(1, True))), LIMITS)
    assert (tagged.colour.matrix, tagged.colour.primaries, tagged.colour.transfer) == (1, 1, 1)
    assert tagged.colour.full_range
    plain = probe_video(make_video(tmp_path / "p.mp4", Clip(frames=2)), LIMITS)
    assert (plain.colour.matrix, plain.colour.primaries, plain.colour.range_known) == (2, 2, False)
    assert plain.sample_aspect == 1
