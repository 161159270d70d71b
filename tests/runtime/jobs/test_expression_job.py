"""Expressions in a preparation, on toy networks: what is shared, what is measured, what differs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_portrait, write_video
from scipy.io import savemat
from toy_networks import publish_toys

from dubstream.benchmarks.demo_clip import portrait_frames
from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import CheckpointError, MediaError, NoFaceError
from dubstream.runtime.expression import ExpressionOptions
from dubstream.runtime.media.opening import content_digest
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.dub import DubOptions, FaceOptions, StreamOptions
from dubstream.runtime.platforms.platform import Platform, open_platform
from dubstream.runtime.preparation.expression import Expression, open_expression
from dubstream.runtime.preparation.preparation import Preparation
from dubstream.runtime.preparation.prepare_video import PrepareRequest, PrepareSummary, prepare
from dubstream.runtime.preparation.references import ReferenceReader
from dubstream.runtime.progress import silent
from dubstream.runtime.timing import Timing
from dubstream.runtime.units.unit_folder import UnitFolder

FRAMES = 24
AWAY = (15, 16, 17)  # frames without the face
STREAM = StreamOptions(batch=4, threads=1)
OPTIONS = DubOptions(stream=STREAM, face=FaceOptions(max_gap=0))


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_portrait(tmp_path_factory.mktemp("talk") / "talk.mp4", FRAMES)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return publish_toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with open_platform(OPTIONS.backend, STREAM) as opened:
        yield opened


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("templates") / "expression.mat"
    # Large numbers: the toy D-Net sees the mean of its window, in which the alignment's pixels weigh most.
    row = np.full((1, 64), 0.2)
    savemat(path, {"expression_center": row, "expression_mouth": row - 8})
    return path


@pytest.fixture(scope="module")
def first(
    talk: Path, toys: dict[str, Artifact], templates: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PrepareRequest, PrepareSummary]:
    """A preparation with the neutral expression, and what it took."""
    options = replace(OPTIONS, expression=ExpressionOptions("neutral", templates))
    request = PrepareRequest(talk, toys, tmp_path_factory.mktemp("first") / "cache", options)
    return request, prepare(request)


@pytest.fixture
def request_(first: tuple[PrepareRequest, PrepareSummary], tmp_path: Path) -> PrepareRequest:
    """The same with a copy of its cache, where it finds itself done."""
    shutil.copytree(first[0].cache, tmp_path / "cache")
    return replace(first[0], cache=tmp_path / "cache")


def expressed(request: PrepareRequest, source: object, *, one_shot: bool = False) -> PrepareRequest:
    wanted = replace(request.options.expression, source=str(source), one_shot=one_shot)
    return replace(request, options=replace(request.options, expression=wanted))


def references(made: PrepareSummary | Preparation) -> dict[int, np.ndarray]:
    (below,) = Path(made.folder).glob(f"references-{made.key[:16]}")
    reader = ReferenceReader(UnitFolder(below, made.key), 240)
    present = [k for k in range(FRAMES) if k not in AWAY]
    found = {k: reader.read(k) for k in present}
    reader.close()
    return found


class Given(Expression):
    """Numbers that the test chose."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows.astype(np.float32)
        self.facts = {"mean": float(rows.mean()), "dims": rows.ndim}

    def rows(self, *_: object) -> np.ndarray:
        return self._rows


def test_another_expression_pays_for_its_references_alone(
    first: tuple[PrepareRequest, PrepareSummary], request_: PrepareRequest
) -> None:
    neutral = prepare(request_)
    assert (neutral.key, neutral.busy_s) == (first[1].key, {})
    assert {"track", "prepare/recon", "prepare/dnet"} <= first[1].busy_s.keys()
    assert (neutral.frames, neutral.present, neutral.notes) == (FRAMES, FRAMES - 3, [])
    smile = prepare(expressed(request_, "smile"))
    assert smile.folder == neutral.folder
    assert smile.key != neutral.key
    assert "prepare/dnet" in smile.busy_s
    assert not {"track", "prepare/recon"} & smile.busy_s.keys()
    ours, theirs = references(neutral), references(smile)
    assert all((ours[k] != theirs[k]).any() for k in ours)
    again = prepare(expressed(request_, "neutral:1:smile"))
    assert (again.key, again.busy_s) == (smile.key, {})


def test_references_from_stored_coefficients_equal_those_from_fresh_ones(
    request_: PrepareRequest, tmp_path: Path
) -> None:
    stored = prepare(expressed(request_, "smile"))
    fresh = prepare(replace(expressed(request_, "smile"), cache=tmp_path / "other"))
    assert "prepare/recon" in fresh.busy_s
    assert "prepare/recon" not in stored.busy_s
    theirs = references(stored)
    for k, picture in references(fresh).items():
        np.testing.assert_array_equal(picture, theirs[k])


def test_one_shot_moves_the_first_picture_for_all_frames(request_: PrepareRequest) -> None:
    fixed = prepare(expressed(request_, "neutral", one_shot=True))
    assert "prepare/recon" not in fixed.busy_s
    ours, held = references(prepare(request_)), references(fixed)
    np.testing.assert_array_equal(ours[0], held[0])

    def pattern(picture: np.ndarray) -> np.ndarray:
        # The toy D-Net shifts all levels of what it moves; the pattern stays.
        inner = picture[100:156, 100:156].astype(float)
        return inner - inner.mean(axis=(0, 1))

    for k in (5, 20):
        assert np.abs(pattern(held[k]) - pattern(held[0])).max() < 2
        assert np.abs(pattern(ours[k]) - pattern(ours[0])).max() > 10


def test_a_picture_gives_all_frames_its_expression(
    request_: PrepareRequest, platform: Platform, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "face.png"), next(iter(portrait_frames(1))))
    wanted = expressed(request_, tmp_path / "face.png")
    expression = open_expression(wanted.options, wanted.artifacts, wanted.cache)
    rows = expression.rows(np.arange(3) / 25, platform, Timing(), silent)
    assert rows.shape == (3, 64)
    assert np.abs(rows[0]).max() > 0.1
    np.testing.assert_array_equal(rows, rows[:1].repeat(3, axis=0))
    summary = prepare(wanted)
    assert summary.notes == []
    assert prepare(wanted).busy_s == {}


def test_a_video_gives_each_moment_its_expression_and_runs_back_when_it_is_shorter(
    request_: PrepareRequest, platform: Platform, tmp_path: Path
) -> None:
    # The toy regressor sees nothing but the mean colour: every frame gets one of its own.
    driver = [
        np.clip(frame * (0.6 + 0.015 * k), 0, 255).astype(np.uint8)
        for k, frame in enumerate(portrait_frames(FRAMES))
    ]
    path = write_video(tmp_path / "driver.mp4", driver, Fraction(25, 2))  # half as fast as what it drives
    options = expressed(request_, path).options
    expression = open_expression(options, request_.artifacts, request_.cache)
    timing = Timing()
    rows = expression.rows(np.arange(56) / 25, platform, timing, silent)
    assert timing.frames["prepare/recon"] == FRAMES - len(AWAY)
    shown = rows[::2]  # the driver's own frames: 0 to 23, then 22, 21, 20, 19
    seen = [k for k in range(FRAMES) if k not in AWAY]
    assert len(np.unique(shown[seen], axis=0)) == len(seen)
    np.testing.assert_array_equal(shown[24:], shown[[22, 21, 20, 19]])
    # Where the driver looks away: straight from the last sight to the next.
    np.testing.assert_allclose(shown[16], (shown[14] + shown[18]) / 2, atol=1e-6)


def test_every_frame_is_driven_by_its_own_row(request_: PrepareRequest, platform: Platform) -> None:
    info, digest = probe_video(request_.video, OPTIONS.limits), content_digest(request_.video)

    def made(rows: np.ndarray) -> dict[int, np.ndarray]:
        with VideoReader(info, OPTIONS.limits) as reader:
            preparation = Preparation(
                reader, info, digest, request_.artifacts, Given(rows), OPTIONS, request_.cache
            )
            preparation.run(np.arange(FRAMES), platform, Timing(), silent)
            return references(preparation)

    low, high = np.full(64, -8.0), np.full(64, 8.0)
    held, raised = made(low), made(high)
    ramp = made(np.stack([low] * 20 + [high] * 4))
    # A driving window reaches 12 frames ahead, and not across the absence at 15 to 17.
    np.testing.assert_array_equal(ramp[3], held[3])
    assert (held[3] != raised[3]).any()
    np.testing.assert_array_equal(ramp[14], held[14])
    assert (ramp[18] != held[18]).any()


def test_unfit_sources_are_refused_before_any_work(request_: PrepareRequest, tmp_path: Path) -> None:
    before = sorted(request_.cache.rglob("*"))
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    (tmp_path / "a.mat").write_bytes(b"no templates")
    for source in ("a.png", "a.mp4", "missing.png"):
        with pytest.raises(MediaError):
            prepare(expressed(request_, tmp_path / source))
    unfit = replace(OPTIONS, expression=ExpressionOptions("smile", tmp_path / "a.mat"))
    with pytest.raises(CheckpointError):
        prepare(replace(request_, options=unfit))
    assert sorted(request_.cache.rglob("*")) == before


def test_a_picture_without_a_face_is_named(request_: PrepareRequest, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((200, 200, 3), 90, np.uint8))
    with pytest.raises(NoFaceError):
        prepare(expressed(request_, tmp_path / "wall.png"))
