"""Segments out: pixels, tags, sizes, bytes, and what happens when the disk does not play along."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import number_of, picture

from dubstream.engines.atomic import atomic_file, part_path, sweep_parts
from dubstream.engines.errors import InternalError, StorageError, UsageError
from dubstream.runtime.media.colour import ColourTags
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import VideoInfo, probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.media.writer import EncodeOptions, SegmentWriter

LIMITS = MediaLimits()
FINE = EncodeOptions(crf=6, preset="veryfast", threads=2)
BT709 = ColourTags(1, 1, 1, full_range=False, range_known=True)


def write(
    path: Path,
    *,
    count: int = 10,
    size: tuple[int, int] = (96, 64),
    rate: Fraction = Fraction(25),
    colour: ColourTags = BT709,
    options: EncodeOptions = FINE,
    aspect: Fraction = Fraction(1),
) -> SegmentWriter:
    with SegmentWriter(path, width=size[0], height=size[1], rate=rate, colour=colour, options=options,
                       sample_aspect=aspect) as writer:  # fmt: skip
        for number in range(count):
            writer.write(picture(number, *size))
    return writer


def shown(info: VideoInfo) -> list[np.ndarray]:
    with VideoReader(info, LIMITS) as reader:
        return [one for _, one in reader.frames()]


@pytest.mark.parametrize(
    "rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60), Fraction(17, 2)]
)
def test_rate_count_and_pictures_come_back(tmp_path: Path, rate: Fraction) -> None:
    writer = write(tmp_path / "s.mp4", rate=rate)
    info = probe_video(tmp_path / "s.mp4", LIMITS)
    assert (info.rate, info.frame_count, writer.frames) == (rate, 10, 10)
    assert info.duration_s == pytest.approx(float(10 / rate))
    assert [number_of(one) for one in shown(info)] == list(range(10))


TAGS = [ColourTags(), BT709, ColourTags(5, 6, 5, True, True), ColourTags(9, 14, 9, False, True)]


@pytest.mark.parametrize("tags", TAGS, ids=str)
def test_tags_are_carried_over_and_the_background_keeps_its_colour(tmp_path: Path, tags: ColourTags) -> None:
    lossless = EncodeOptions(crf=0, preset="veryfast", threads=1)  # what remains is the conversion
    write(tmp_path / "s.mp4", count=4, colour=tags, options=lossless)
    info = probe_video(tmp_path / "s.mp4", LIMITS)
    if tags.range_known:
        assert info.colour == tags
    else:
        assert (info.colour.primaries, info.colour.transfer, info.colour.matrix) == (2, 2, 2)
    below_bars = (slice(38, None), slice(2, -2))
    for number, one in enumerate(shown(info)):
        difference = one[below_bars].astype(int) - picture(number)[below_bars]
        assert np.abs(difference).mean() <= 1.0
        # swscale rounds full-range chroma down, half a level on average.
        assert np.abs(difference.mean(axis=(0, 1))).max() <= (1.0 if tags.full_range else 0.15)


@pytest.mark.parametrize(
    ("pix_fmt", "coded"), [("yuv420p", (98, 64)), ("yuv422p", (98, 63)), ("yuv444p", (97, 63))]
)
def test_odd_sizes_are_padded_by_their_own_edge_or_kept(
    tmp_path: Path, pix_fmt: str, coded: tuple[int, int]
) -> None:
    options = EncodeOptions(crf=4, preset="veryfast", threads=1, pix_fmt=pix_fmt)
    writer = write(tmp_path / "s.mp4", count=3, size=(97, 63), options=options)
    info = probe_video(tmp_path / "s.mp4", LIMITS)
    assert (info.width, info.height) == coded == options.coded_size(97, 63)
    assert writer.padding == (coded[0] - 97, coded[1] - 63)
    for number, one in enumerate(shown(info)):
        assert number_of(one[:63, :97]) == number
        assert np.abs(one[-1, 40:90].astype(int) - picture(number, 97, 63)[-1, 40:90]).max() < 12


def test_sample_aspect_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "s.mp4", aspect=Fraction(16, 11))
    assert probe_video(tmp_path / "s.mp4", LIMITS).sample_aspect == Fraction(16, 11)


def test_every_key_frame_closes_its_group(tmp_path: Path) -> None:
    write(tmp_path / "s.mp4", count=20, options=EncodeOptions(preset="veryfast", threads=2, gop=8))
    index = probe_video(tmp_path / "s.mp4", LIMITS).index
    assert np.array_equal(index.key_pts, index.key_dts)
    assert [int(np.searchsorted(index.pts, key)) for key in index.key_pts] == [0, 8, 16]


TWO_GROUPS = """
import hashlib, sys
from fractions import Fraction
from pathlib import Path
sys.path.insert(0, {tests!r})
from media_factory import picture
from dubstream.runtime.media.colour import ColourTags
from dubstream.runtime.media.writer import EncodeOptions, SegmentWriter
path = Path(sys.argv[1])
kind = dict(width=320, height=256, rate=Fraction(25), colour=ColourTags())
with SegmentWriter(path, options=EncodeOptions(threads=int(sys.argv[2])), **kind) as out:
    for number in range(45):
        out.write(picture(number * 5 % 256, 320, 256))
print(hashlib.sha256(path.read_bytes()).hexdigest())
"""


@pytest.mark.parametrize("threads", ["1", "4"])
def test_bytes_repeat_whatever_memory_held_before(tmp_path: Path, threads: str) -> None:
    # Poisoned allocations show an encoder that reads what it never wrote; see the note in writer.py.
    script = TWO_GROUPS.format(tests=str(Path(__file__).parents[2]))
    digests = set()
    for poison in ("0", "85", "255"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "s.mp4"), threads],
            env={**os.environ, "MALLOC_PERTURB_": poison}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(done.stdout)
    assert len(digests) == 1


def test_an_exception_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), _writer(tmp_path / "s.mp4") as writer:  # noqa: PT012
        writer.write(picture(0))
        assert part_path(tmp_path / "s.mp4").exists()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_no_picture_is_no_segment(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="without a picture"):
        write(tmp_path / "s.mp4", count=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [np.zeros((64, 95, 3), np.uint8), np.zeros((64, 96, 3), np.float32)])
def test_a_picture_that_does_not_fit_is_our_fault(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(InternalError, match="expected uint8"), _writer(tmp_path / "s.mp4") as writer:
        writer.write(wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_a_storage_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        _writer(tmp_path / "gone" / "s.mp4")


def test_a_folder_deleted_while_writing_is_a_storage_error(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with pytest.raises(StorageError), _writer(folder / "s.mp4") as writer:  # noqa: PT012
        writer.write(picture(0))
        part_path(folder / "s.mp4").unlink()
        folder.rmdir()
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
from fractions import Fraction
from pathlib import Path
sys.path.insert(0, {tests!r})
import numpy as np
from dubstream.engines.errors import StorageError
from dubstream.runtime.media.colour import ColourTags
from dubstream.runtime.media.writer import EncodeOptions, SegmentWriter
noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
options = EncodeOptions(preset="ultrafast", threads=1)
for allowed in range(0, 60000, 6000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, resource.RLIM_INFINITY))
    try:
        with SegmentWriter(Path(sys.argv[1]), width=96, height=64, rate=Fraction(25), colour=ColourTags(),
                           options=options) as out:
            for _ in range(12):
                out.write(noise)
    except StorageError as error:
        assert "MiB are free" in str(error) or "disk" in str(error), error
        print("refused")
    else:
        print("written")
"""


def test_a_full_disk_at_any_point_is_a_storage_error_without_a_file(tmp_path: Path) -> None:
    script = FULL_DISK.format(tests=str(Path(__file__).parents[2]))
    path = tmp_path / "s.mp4"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split()
    size = path.stat().st_size
    assert answers == ["refused" if allowed < size else "written" for allowed in range(0, 60000, 6000)]
    assert set(answers) == {"refused", "written"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.mp4"]


BAD_OPTIONS = [
    {"crf": 52},
    {"crf": float("nan")},
    {"preset": "placebo"},
    {"threads": 0},
    {"pix_fmt": "rgb24"},
    {"gop": 0},
]


@pytest.mark.parametrize("wrong", BAD_OPTIONS, ids=str)
def test_option_values_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="expected"):
        EncodeOptions(**wrong)  # type: ignore[arg-type]


def test_the_longest_name_still_has_a_temporary_one(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 251 + ".mp4")
    with atomic_file(long) as part:
        part.write_bytes(b"whole")
    assert long.read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_dead_processes_are_swept(tmp_path: Path) -> None:
    script = "import os; print(os.getpid())"
    dead = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    left = tmp_path / f".dubstream-{'0' * 12}.{int(dead.stdout)}.part"
    mine = part_path(tmp_path / "a.mp4")
    for entry in (left, mine, tmp_path / "other.part"):
        entry.touch()
    assert sweep_parts(tmp_path) == [left]
    assert sorted(tmp_path.iterdir()) == sorted([mine, tmp_path / "other.part"])


def _writer(path: Path) -> SegmentWriter:
    return SegmentWriter(path, width=96, height=64, rate=Fraction(25), colour=ColourTags(), options=FINE)
