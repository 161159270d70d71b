"""Damaged, disguised and oversized files: success, or one of our errors, quickly and in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import Clip, Sound, make_audio, make_video, number_of
from mutations import mutated

from dubstream.engines.errors import DubError, LimitError, MediaError, TruncatedMediaError, UsageError
from dubstream.runtime.media.audio import decode_audio
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.opening import content_digest
from dubstream.runtime.media.probe import VideoInfo, probe_video
from dubstream.runtime.media.reader import VideoReader

LIMITS = MediaLimits()
B_FRAMES = {"preset": "veryfast", "crf": "12", "bf": "3", "g": "10"}
SOUND = (Sound(seconds=1.6),)
FASTSTART = Clip(frames=40, options=B_FRAMES, container={"movflags": "+faststart"}, sounds=SOUND)


def numbers(info: VideoInfo) -> list[int]:
    with VideoReader(info, LIMITS) as reader:
        return [number_of(shown) for _, shown in reader.frames()]


DISGUISES = {
    "ffconcat": "ffconcat version 1.0\nfile 'real.mp4'\n",
    "concat without version": "file 'real.mp4'\nfile 'real.mp4'\n",
    "playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nreal.ts\n#EXT-X-ENDLIST\n",
    "remote playlist": "#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "session description": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "vector picture": "<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "filter graph": "testsrc=duration=5:size=64x64:rate=25",
    "dash": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><Period/></MPD>",
    "subtitles": "1\n00:00:00,000 --> 00:00:05,000\nhello\n",
    "shell": "#!/bin/sh\ntouch INJECTED\n",
}


@pytest.mark.parametrize("text", DISGUISES.values(), ids=DISGUISES.keys())
@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.ts"])
def test_a_script_under_a_videos_name_is_refused(tmp_path: Path, name: str, text: str) -> None:
    make_video(tmp_path / "real.mp4", Clip(frames=3))
    make_video(tmp_path / "real.ts", Clip(frames=3))
    (tmp_path / name).write_text(text)
    for read in (probe_video, decode_audio):
        with pytest.raises(MediaError) as caught:
            read(tmp_path / name, LIMITS)
        assert "text file" in str(caught.value)
        assert "\n" not in str(caught.value)


ADDRESSES = [
    "http://127.0.0.1:9/a.mp4",
    "rtmp://x/y",
    "concat:a.mp4|b.mp4",
    "file:real.mp4",
    "pipe:0",
    "data:,x",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_and_protocols_are_only_file_names(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "real.mp4", Clip(frames=3))
    with pytest.raises(MediaError, match="No such file"):
        probe_video(Path(address), LIMITS)


ODD_NAMES = [
    "-i.mp4", "new\nline.mp4", "quo'te\".mp4", "file:x.mp4", "concat:a|b.mp4", "per%d.mp4", "bild ü 映.mp4",
    "$(touch INJECTED); #.mp4", "glob*?[x].mp4", "no extension", "back\\slash.mp4", "x" * 251 + ".mp4",
]  # fmt: skip


@pytest.mark.parametrize("name", [*ODD_NAMES, os.fsdecode(b"not-utf8-\xff.mp4")])
def test_odd_but_legal_names_are_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = make_video(tmp_path / "made.mp4", Clip(frames=3, sounds=SOUND))
    digest = content_digest(made)
    made.rename(tmp_path / name)
    assert numbers(probe_video(Path(name), LIMITS)) == [0, 1, 2]
    assert decode_audio(Path(name), LIMITS).rate == 48000
    assert content_digest(Path(name)) == digest
    assert not Path("INJECTED").exists()


def test_what_is_no_file_of_a_video_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    make_audio(tmp_path / "sound.m4a", Sound(), format="ipod")
    for name, why in (
        ("missing.mp4", "No such file"),
        ("", "is a folder"),
        ("empty.mp4", "is empty"),
        ("pipe.mp4", "is a pipe"),
        ("loop.mp4", "symbolic links"),
        ("nul\0.mp4", "NUL"),
        ("/dev/zero", "is a device"),
        ("sound.m4a", "no video stream"),
    ):
        with pytest.raises(MediaError, match=why):
            probe_video(tmp_path / name, LIMITS)


def test_an_unreadable_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "secret.mp4", Clip(frames=2))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # root may read anything

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MediaError, match="Permission denied"):
        probe_video(path, LIMITS)


@pytest.mark.parametrize(
    "kind", [("png", "rgb24"), ("mjpeg", "yuvj420p"), ("bmp", "bgr24"), ("tiff", "rgb24")]
)
def test_still_pictures_are_named(tmp_path: Path, kind: tuple[str, str]) -> None:
    path = make_video(
        tmp_path / "x.mp4", Clip(frames=1, codec=kind[0], pix_fmt=kind[1], options={}, format="image2pipe")
    )
    with pytest.raises(MediaError, match="still picture"):
        probe_video(path, LIMITS)


def test_an_animation_is_handled_as_a_still_picture(tmp_path: Path) -> None:
    path = make_video(tmp_path / "x.gif", Clip(frames=3, codec="gif", pix_fmt="rgb8", options={}))
    with pytest.raises(MediaError, match="GIF"):
        probe_video(path, LIMITS)


MEASURED = """
import sys, time
from pathlib import Path
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import probe_video
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
import av, numpy
idle, began = peak(), time.perf_counter()
try:
    probe_video(Path(sys.argv[1]), MediaLimits()).plan(MediaLimits())
except Exception as error:
    print(type(error).__name__, "|", error)
print(time.perf_counter() - began, peak() - idle)
"""


def refusal(path: Path) -> tuple[str, float, int]:
    """(error, seconds, MiB above idle) of probing a file in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True
    )
    error, figures = done.stdout.splitlines()
    seconds, mebibytes = figures.split()
    assert done.stderr == ""
    return error, float(seconds), int(mebibytes)


def test_a_huge_picture_is_refused_quickly_and_in_little_memory(tmp_path: Path) -> None:
    black = {"preset": "ultrafast", "crf": "51"}
    with av.open(str(tmp_path / "big.mkv"), "w") as output:
        stream = output.add_stream("libx264", rate=25, options=black)
        stream.width = stream.height = 8000
        stream.pix_fmt = "yuv420p"
        output.mux(stream.encode(av.VideoFrame(8000, 8000, "yuv420p")))
        output.mux(stream.encode(None))
    error, seconds, mebibytes = refusal(tmp_path / "big.mkv")
    assert error.startswith("LimitError")
    assert "--max-pixels" in error
    assert seconds < 2
    assert mebibytes < 200


def test_a_bomb_of_time_is_refused_quickly(tmp_path: Path) -> None:
    stamps = (0, 40, 36_000_000)
    path = make_video(tmp_path / "bomb.mkv", Clip(frames=3, stamps=stamps, time_base=Fraction(1, 1000)))
    assert path.stat().st_size < 20_000
    error, seconds, mebibytes = refusal(path)
    assert error.startswith("LimitError")
    assert "--max-" in error
    assert seconds < 2
    assert mebibytes < 200


def test_a_header_of_a_million_frames_is_refused_quickly(tmp_path: Path) -> None:
    path = make_video(tmp_path / "million.mp4", Clip(frames=3, options={"preset": "ultrafast", "bf": "0"}))
    data = bytearray(path.read_bytes())
    million = (1_000_000).to_bytes(4, "big")
    sizes, times = data.index(b"stsz"), data.index(b"stts")
    data[sizes + 8 : sizes + 16] = (100).to_bytes(4, "big") + million  # one size for all, then their number
    data[times + 12 : times + 16] = million
    path.write_bytes(data)
    error, seconds, mebibytes = refusal(path)
    assert error.split(" |")[0] in ("LimitError", "TruncatedMediaError", "MediaError")
    assert seconds < 2
    assert mebibytes < 200


def test_frames_and_length_have_limits(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(frames=12))
    for limits, option in (
        (MediaLimits(max_frames=11), "--max-frames"),
        (MediaLimits(max_duration_s=0.4), "--max-duration"),
        (MediaLimits(max_pixels=6000), "--max-pixels"),
    ):
        with pytest.raises(LimitError, match=option):
            probe_video(path, limits)
    assert probe_video(path, MediaLimits(max_frames=12, max_duration_s=0.48)).frame_count == 12
    with pytest.raises(UsageError, match="--max-gap"):
        MediaLimits(max_gap_s=float("nan"))


CUT = {
    "a.mp4": FASTSTART,
    "a.mkv": Clip(frames=40, options=B_FRAMES),
    "a.ts": Clip(frames=40, options=B_FRAMES),
    "a.avi": Clip(frames=40, codec="mpeg4", options={"qscale": "2"}),
}


class TestTruncation:
    @pytest.mark.parametrize("name", CUT)
    def test_a_cut_video_is_refused_or_its_beginning_read(self, tmp_path: Path, name: str) -> None:
        path = make_video(tmp_path / name, CUT[name])
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 7 // 10])
        with pytest.raises(TruncatedMediaError, match="--allow-truncated"):
            probe_video(path, LIMITS)
        info = probe_video(path, LIMITS, allow_truncated=True)
        assert 3 < info.frame_count < 40
        assert info.lost_frames > 0
        if name in ("a.mp4", "a.mkv"):
            assert info.frame_count + info.lost_frames == 40
        whole = numbers(info)
        assert whole[:4] == [0, 1, 2, 3]
        with VideoReader(info, LIMITS) as reader:  # and again from the middle, as a resumed job does
            rest = [number_of(shown) for _, shown in reader.frames(info.frame_count // 2)]
        assert rest == whole[info.frame_count // 2 :]

    def test_a_recording_without_its_index_says_so(self, tmp_path: Path) -> None:
        path = make_video(tmp_path / "a.mp4", Clip(frames=20))
        data = path.read_bytes()
        path.write_bytes(data[: data.index(b"moov") + 300])
        with pytest.raises(TruncatedMediaError, match="header promises"):
            probe_video(path, LIMITS)
        path.write_bytes(data[: data.index(b"moov") - 300])
        for allow in (False, True):
            with pytest.raises(MediaError, match="without its index"):
                probe_video(path, LIMITS, allow_truncated=allow)

    def test_damage_inside_a_picture_stops_the_reader_unless_allowed(self, tmp_path: Path) -> None:
        path = make_video(tmp_path / "a.mp4", FASTSTART)
        data = bytearray(path.read_bytes())
        with av.open(str(path)) as container:
            keys = [(p.pos, p.size) for p in container.demux(video=0) if p.is_keyframe]
        at, size = keys[2]
        data[at + 30 : at + size] = np.random.default_rng(1).bytes(size - 30)
        path.write_bytes(data)
        info = probe_video(path, LIMITS)  # the packets are all there
        with pytest.raises(TruncatedMediaError, match=r"damaged|lacks frame"):
            numbers(info)
        allowed = probe_video(path, LIMITS, allow_truncated=True)
        assert numbers(allowed)[:10] == list(range(10))

    @pytest.mark.parametrize("name", ["a.ts", "a.h264"])
    def test_a_change_of_size_ends_the_part_that_can_be_dubbed(self, tmp_path: Path, name: str) -> None:
        format = name[2:].replace("ts", "mpegts")
        plain = {"preset": "ultrafast", "bf": "0"}
        small = make_video(tmp_path / "s", Clip(frames=8, options=plain, format=format))
        large = make_video(tmp_path / "l", Clip(frames=8, width=128, height=96, options=plain, format=format))
        path = tmp_path / name
        path.write_bytes(small.read_bytes() + large.read_bytes())
        with pytest.raises(TruncatedMediaError, match=r"changes size from 96x64 to 128x96|damaged packets"):
            numbers(probe_video(path, LIMITS))
        info = probe_video(path, LIMITS, allow_truncated=True)
        assert (info.width, info.height) == (96, 64)
        assert numbers(info) == list(range(8))


SOURCES = {
    "fast.mp4": FASTSTART,
    "plain.mp4": Clip(frames=40, options=B_FRAMES, sounds=SOUND),
    "x.mkv": Clip(frames=40, options=B_FRAMES, sounds=SOUND),
    "x.avi": Clip(frames=40, codec="mpeg4", options={"qscale": "4"}),
    "x.webm": Clip(frames=40, codec="libvpx-vp9", options={"cpu-used": "8", "b": "1M"}),
}
SOUNDS = {
    "a.wav": Sound(codec="pcm_s16le"),
    "a.mp3": Sound(codec="libmp3lame", rate=44100),
    "a.flac": Sound(codec="flac"),
    "a.ogg": Sound(codec="libopus"),
}


def error_or_count(path: Path, *, allow: bool) -> DubError | int:
    """Frames of a damaged video, read as a job reads them, or our error."""
    try:
        info = probe_video(path, LIMITS, allow_truncated=allow)
        with VideoReader(info, LIMITS) as reader:
            assert sum(1 for _ in reader.frames_at(info.plan(LIMITS))) > 0
    except DubError as error:
        return error
    return info.frame_count


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("name", SOURCES)
def test_damaged_videos_end_in_success_or_our_error(tmp_path: Path, name: str, allow: bool) -> None:
    data = make_video(tmp_path / f"whole{Path(name).suffix}", SOURCES[name]).read_bytes()
    for seed in range(18):
        kind, broken = mutated(data, seed)
        (tmp_path / name).write_bytes(broken)
        found = error_or_count(tmp_path / name, allow=allow)
        if isinstance(found, DubError):
            assert found.exit_code == 2, found
            assert "\n" not in str(found)
        else:
            assert allow or found >= 40, (seed, kind)  # never shorter in silence


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("name", SOUNDS)
def test_damaged_audio_ends_in_success_or_our_error(tmp_path: Path, name: str, allow: bool) -> None:
    path = make_audio(tmp_path / f"whole{Path(name).suffix}", SOUNDS[name])
    data, length = path.read_bytes(), decode_audio(path, LIMITS).duration_s
    for seed in range(18):
        kind, broken = mutated(data, seed)
        (tmp_path / name).write_bytes(broken)
        found = error_or_seconds(tmp_path / name, allow=allow)
        if isinstance(found, DubError):
            assert found.exit_code == 2, found
            assert "\n" not in str(found)
        else:
            assert allow or found > length - 0.1, (seed, kind)


def error_or_seconds(path: Path, *, allow: bool) -> DubError | float:
    """Length of a damaged sound, or our error."""
    try:
        return decode_audio(path, LIMITS, allow_truncated=allow).duration_s
    except DubError as error:
        return error
