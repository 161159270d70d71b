"""The finished file: exact frames, sound of the right length, equal bytes, or nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import number_of, picture, sine

from dubstream.engines.errors import InternalError, MediaError, StorageError, UsageError
from dubstream.runtime.media.assemble import assemble, check_output_target
from dubstream.runtime.media.audio import AudioTrack, decode_audio
from dubstream.runtime.media.colour import ColourTags
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.media.writer import EncodeOptions, SegmentWriter

LIMITS = MediaLimits()
NTSC = Fraction(30000, 1001)
QUICK = EncodeOptions(crf=8, preset="ultrafast", threads=1)


def segments(
    folder: Path,
    lengths: Sequence[int],
    rate: Fraction = NTSC,
    options: EncodeOptions = QUICK,
    stem: str = "s",
) -> list[Path]:
    paths, number = [], 0
    for index, length in enumerate(lengths):
        paths.append(folder / f"{stem}{index}.mp4")
        with SegmentWriter(paths[-1], width=96, height=64, rate=rate, colour=ColourTags(1, 1, 1, False, True),
                           options=options) as out:  # fmt: skip
            for _ in range(length):
                out.write(picture(number))
                number += 1
    return paths


def tone(seconds: float, rate: int = 44100, layout: str = "stereo") -> AudioTrack:
    return AudioTrack(sine(rate, seconds, channels=av.AudioLayout(layout).nb_channels), rate, layout)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return segments(tmp_path_factory.mktemp("parts"), [7, 1, 24, 13, 2, 30])


@pytest.mark.parametrize("name", ["o.mp4", "o.MOV", "o.m4v", "o.mkv"])
def test_segments_of_any_length_join_cleanly(tmp_path: Path, parts: list[Path], name: str) -> None:
    made = assemble(parts, tone(2.0), tmp_path / name, rate=NTSC, frames=77)
    info = probe_video(tmp_path / name, LIMITS)
    assert (made.frames, info.frame_count, info.rate) == (77, 77, NTSC)
    assert (info.colour.matrix, info.colour.primaries) == (1, 1)
    assert abs(made.video_s - made.audio_s) < 1 / 30
    with VideoReader(info, LIMITS) as reader:
        assert [number_of(shown) for _, shown in reader.frames()] == list(range(77))
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_stamps_ascend_by_exactly_one_frame(tmp_path: Path, parts: list[Path]) -> None:
    assemble(parts, tone(1.0), tmp_path / "o.mp4", rate=NTSC, frames=77)
    with av.open(str(tmp_path / "o.mp4")) as container:
        video = container.streams.video[0]
        packets = [p for p in container.demux(video) if p.size]
    assert [p.pts * p.time_base for p in packets] == [k / NTSC for k in range(77)]
    assert all(p.dts == p.pts for p in packets)


TONES = [tone(1.0), tone(9.0, 16000, "mono"), tone(2.5, 37800), tone(1.0, 48000, "5.1"),
         tone(0.2, 8000, "mono"), tone(1.0, 192000)]  # fmt: skip


@pytest.mark.parametrize("name", ["o.mp4", "o.mkv"])
@pytest.mark.parametrize("audio", TONES, ids=lambda track: f"{track.rate}-{track.layout}")
def test_sound_is_cut_or_filled_to_the_video(
    tmp_path: Path, parts: list[Path], audio: AudioTrack, name: str
) -> None:
    made = assemble(parts, audio, tmp_path / name, rate=NTSC, frames=77)
    assert abs(made.video_s - made.audio_s) < 1 / 30 + (1024 / 8000 if name == "o.mkv" else 0)
    heard = decode_audio(tmp_path / name, LIMITS)
    assert heard.samples.shape[0] == (1 if audio.layout == "mono" else 2)
    middle = min(audio.duration_s, made.video_s) / 2
    loud = heard.samples[:, int(heard.rate * (middle - 0.05)) : int(heard.rate * (middle + 0.05))]
    assert 0.2 < np.sqrt((loud**2).mean()) < 0.6
    if audio.duration_s < 2.4:
        assert np.abs(heard.samples[:, int(heard.rate * 2.52) :]).max() < 0.01


def test_sound_stays_in_time(tmp_path: Path, parts: list[Path]) -> None:
    click = np.zeros((1, 48000 * 3), np.float32)
    click[0, 72000:72240] = 0.8  # at 1.5 s
    assemble(parts, AudioTrack(click, 48000, "mono"), tmp_path / "o.mp4", rate=NTSC, frames=77)
    heard = decode_audio(tmp_path / "o.mp4", LIMITS)
    assert np.abs(heard.samples[0]).argmax() / heard.rate == pytest.approx(1.5025, abs=0.004)


def test_the_job_may_set_the_sounds_length(tmp_path: Path, parts: list[Path]) -> None:
    length = 77 / NTSC - Fraction(1, 40)
    made = assemble(parts, tone(9.0), tmp_path / "o.mp4", rate=NTSC, frames=77, audio_seconds=length)
    assert made.audio_s == pytest.approx(float(length), abs=0.001)
    with pytest.raises(InternalError, match="a frame or more"):
        assemble(parts, tone(9.0), tmp_path / "p.mp4", rate=NTSC, frames=77, audio_seconds=Fraction(2))
    assert [entry.name for entry in tmp_path.iterdir()] == ["o.mp4"]


@pytest.mark.parametrize("name", ["o.mp4", "o.mov", "o.mkv"])
def test_equal_input_gives_equal_bytes(tmp_path: Path, parts: list[Path], name: str) -> None:
    contents = []
    for _ in range(3):
        assemble(parts, tone(2.5), tmp_path / name, rate=NTSC, frames=77, comment="padded by 1x1")
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] == contents[2]
    with av.open(str(tmp_path / name)) as container:
        assert {key.lower(): text for key, text in container.metadata.items()}["comment"] == "padded by 1x1"


def test_a_film_without_sound(tmp_path: Path, parts: list[Path]) -> None:
    made = assemble(parts, None, tmp_path / "o.mp4", rate=NTSC, frames=77)
    assert made.audio_s == 0.0
    assert not probe_video(tmp_path / "o.mp4", LIMITS).has_audio


def test_segments_that_do_not_belong_together_are_refused(tmp_path: Path, parts: list[Path]) -> None:
    other = segments(tmp_path, [3], options=EncodeOptions(crf=8, preset="veryfast", threads=1), stem="other")
    slower = segments(tmp_path, [3], rate=Fraction(25), stem="slower")
    out = tmp_path / "o.mp4"
    with pytest.raises(InternalError, match="other options"):
        assemble([parts[0], other[0]], None, out, rate=NTSC, frames=10)
    with pytest.raises(InternalError, match="out of its place"):
        assemble(slower, None, out, rate=NTSC, frames=3)
    with pytest.raises(InternalError, match="add up to 77 frames, expected 78"):
        assemble(parts, None, out, rate=NTSC, frames=78)
    with pytest.raises(InternalError, match="no segments"):
        assemble([], None, out, rate=NTSC, frames=0)
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))


def test_failures_leave_the_old_output_and_no_temporary_file(tmp_path: Path, parts: list[Path]) -> None:
    out = tmp_path / "o.mp4"
    out.write_bytes(b"the older result")

    class Broken:
        rate, layout = 44100, "mono"

        def blocks(self) -> object:
            yield np.zeros((1, 44100), np.float32)
            raise MediaError("the audio is damaged at 1.00 s")

    with pytest.raises(MediaError, match="damaged at"):
        assemble(parts, Broken(), out, rate=NTSC, frames=77)  # type: ignore[arg-type]
    assert out.read_bytes() == b"the older result"
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path: Path, parts: list[Path]) -> None:
    with pytest.raises(StorageError):
        assemble(parts, None, tmp_path / "gone" / "o.mp4", rate=NTSC, frames=77)


class TestTarget:
    def test_a_new_name_and_an_old_file_are_fine(self, tmp_path: Path) -> None:
        source = tmp_path / "in.mp4"
        source.touch()
        check_output_target(tmp_path / "out.mp4", [source])
        (tmp_path / "out.mp4").touch()
        check_output_target(tmp_path / "out.mp4", [source, tmp_path / "missing.wav"])

    def test_an_input_by_any_name_is_refused(self, tmp_path: Path) -> None:
        source = tmp_path / "in.mp4"
        source.touch()
        os.link(source, tmp_path / "hard.mp4")
        (tmp_path / "soft.mp4").symlink_to(source)
        for name in ("in.mp4", "hard.mp4", "soft.mp4", f"../{tmp_path.name}/in.mp4"):
            with pytest.raises(UsageError, match="same file"):
                check_output_target(tmp_path / name, [source])

    def test_folders_and_names_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "folder.mp4").mkdir()
        (tmp_path / "file").touch()
        os.mkfifo(tmp_path / "pipe.mp4")
        for name, why in (
            ("folder.mp4", "no regular file"),
            ("pipe.mp4", "no regular file"),
            ("gone/o.mp4", "does not exist"),
            ("file/o.mp4", "is not a folder"),
            ("o.avi", "expected one of .mp4"),
            ("o", "expected one of .mp4"),
        ):
            with pytest.raises(UsageError, match=why):
                check_output_target(tmp_path / name, [])

    def test_a_folder_without_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
        with pytest.raises(UsageError, match="not writable"):
            check_output_target(tmp_path / "o.mp4", [])
