"""Emotions: their names, their action units, and what they do to a dubbed frame."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import QUICK, frames_of, write_portrait, write_speech
from toy_half_networks import publish_half_toys
from toy_networks import publish_toys

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import StageError, UsageError
from dubstream.engines.face_specs import GANIMATION
from dubstream.runtime.emotion import ACTION_UNITS, EmotionOptions, parse_emotion
from dubstream.runtime.job.dub import dub
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import DubOptions, DubRequest, StreamOptions
from dubstream.runtime.options.finish import FinishOptions

FRAMES = 6
OPTIONS = DubOptions(
    stream=StreamOptions(batch=4, threads=1), encode=replace(QUICK, crf=0, pix_fmt="yuv444p")
)
LOSSLESS = 3  # levels that two conversions of colour may cost
LAYOUT = Path(__file__).parents[1] / "data" / "layouts" / "ganimation.json"
Dubbed = Callable[..., tuple[DubSummary, np.ndarray]]


def test_units_stand_in_the_order_of_the_network() -> None:
    told = json.loads(LAYOUT.read_text())["inputs"]["aus"][1]
    numbers = tuple(int(number) for number in re.findall(r"\d+", told.partition("AU")[2]))
    assert numbers == ACTION_UNITS
    assert GANIMATION.input("aus").shape[1] == len(ACTION_UNITS)
    assert " ".join(f"{unit:02d}" for unit in ACTION_UNITS) in GANIMATION.input("aus").meaning


def test_the_intensities_are_the_original_programs() -> None:
    def told(name: str) -> dict[int, float]:
        values = EmotionOptions(name).intensities
        return {
            unit: round(float(value), 6) for unit, value in zip(ACTION_UNITS, values, strict=True) if value
        }

    assert told("angry") == {4: 0.3}
    assert told("surprise") == {5: 0.2}
    assert told("sad") == {}


def test_names_and_strengths() -> None:
    assert parse_emotion("original").networks == ()
    assert parse_emotion("sad").networks == ("ganimation",)
    assert parse_emotion("angry:0.25") == EmotionOptions("angry", 0.25)
    assert parse_emotion("angry:0").networks == ()


@pytest.mark.parametrize("text", ["", "glad", "angry:", "angry:much", "angry:1.5", "angry:-1", "angry:nan"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--emotion"):
        parse_emotion(text)


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> DubRequest:
    folder = tmp_path_factory.mktemp("emotion")
    toys = publish_toys(folder / "toys")
    video = write_portrait(folder / "talk.mp4", FRAMES)
    voice = write_speech(folder / "voice.wav", FRAMES / 25)
    return DubRequest(video, voice, folder / "out.mp4", toys, folder / "cache", OPTIONS)


@pytest.fixture(scope="module")
def dubbed(request_: DubRequest) -> Dubbed:
    """Dubs; every job once, as jobs of one module share their preparation."""
    done: dict[tuple[str, str], tuple[DubSummary, np.ndarray]] = {}

    def run(emotion: str = "original", mask: str = "box") -> tuple[DubSummary, np.ndarray]:
        if (emotion, mask) not in done:
            options = replace(OPTIONS, emotion=parse_emotion(emotion), finish=FinishOptions(mask))
            summary = dub(replace(request_, options=options))
            done[emotion, mask] = summary, frames_of(request_.output)
        return done[emotion, mask]

    return run


def rows_changed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rows of the clip in which something changed."""
    return np.flatnonzero(np.abs(first - second).max(axis=(0, 2, 3)) > LOSSLESS)


def test_the_upper_face_changes_and_the_mouth_does_not(dubbed: Dubbed, request_: DubRequest) -> None:
    summary, angry = dubbed("angry")
    plain = dubbed()[1]
    assert {"synthesise/look", "synthesise/ganimation", "synthesise/emotion"} <= summary.busy_s.keys()
    assert "licence of ganimation" in " ".join(summary.notes)
    upper, mouth = rows_changed(angry, plain), rows_changed(plain, frames_of(request_.video))
    # The face box's 0.56 is where the emotion ends, 0.44 where the mouth begins.
    assert upper.min() < mouth.min() - 40
    assert upper.max() <= mouth.min() + 0.12 * (mouth.max() - mouth.min()) / 0.5
    columns = np.abs(angry - plain).max(axis=(0, 1, 3)) > LOSSLESS
    assert not columns[:60].any()
    assert not columns[-60:].any()


def test_the_original_emotion_needs_no_network_and_changes_nothing(dubbed: Dubbed) -> None:
    summary, plain = dubbed()
    assert "ganimation" not in OPTIONS.networks
    assert not any("ganimation" in stage for stage in summary.busy_s)
    np.testing.assert_array_equal(dubbed("angry:0")[1], plain)


def test_strength_is_a_share_of_the_change(dubbed: Dubbed) -> None:
    plain = dubbed()[1]
    whole, half = np.abs(dubbed("angry")[1] - plain), np.abs(dubbed("angry:0.5")[1] - plain)
    assert whole.max() > 20
    strong = whole > 20
    assert 0.4 < np.median(half[strong] / whole[strong]) < 0.6


def test_emotions_differ_where_their_units_do(dubbed: Dubbed) -> None:
    # The toy network adds the mean of the units: none for sad, most for angry.
    sad, angry = dubbed("sad")[1], dubbed("angry")[1]
    assert angry.mean() > sad.mean()


def test_it_works_with_a_finish_by_networks(dubbed: Dubbed) -> None:
    summary, angry = dubbed("angry", "parse")
    assert {"synthesise/ganimation", "synthesise/finish"} <= summary.busy_s.keys()
    assert np.abs(angry - dubbed("original", "parse")[1]).max() > 20


def test_half_precision_gives_nearly_the_same(dubbed: Dubbed, request_: DubRequest, tmp_path: Path) -> None:
    options = replace(OPTIONS, emotion=parse_emotion("angry"), backend=Backend(wanted="fp16"))
    dub(
        replace(
            request_,
            options=options,
            artifacts=publish_half_toys(tmp_path / "half"),
            cache=tmp_path / "cache",
        )
    )
    difference = np.abs(frames_of(request_.output) - dubbed("angry")[1])
    assert difference.mean() < 0.2
    assert np.percentile(difference, 99.9) <= 4


def test_nonsense_is_named_with_stage_and_frame(request_: DubRequest, tmp_path: Path) -> None:
    broken: dict[str, Artifact] = publish_toys(tmp_path / "broken", broken="ganimation")
    options = replace(OPTIONS, emotion=parse_emotion("sad"))
    artifacts = {**request_.artifacts, "ganimation": broken["ganimation"]}
    with pytest.raises(StageError, match="stage 'emotion' failed at frame 0"):
        dub(replace(request_, options=options, artifacts=artifacts, output=tmp_path / "out.mp4"))
    assert not (tmp_path / "out.mp4").exists()
