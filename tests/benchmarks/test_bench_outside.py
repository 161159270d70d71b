"""What a frame costs outside the networks: free networks, samples of both modes, the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dubstream.benchmarks.bench.frame_cost import outside
from dubstream.benchmarks.bench.frame_cost.free_networks import FilmedFace, FreeEngine, free_engine
from dubstream.benchmarks.bench.frame_cost.outside import (
    BOTH,
    FIRST,
    NATIVE,
    SECOND,
    UPSTREAM,
    median_ms,
    outside_ms,
    outside_rows,
)
from dubstream.engines.specs import spec_of
from dubstream.kernels.detection import RETINAFACE_RULE, faces_among
from dubstream.runtime.cli.app import run

SMALL = FilmedFace(320, 240)


def test_a_free_network_answers_what_it_was_told_and_nothing_else() -> None:
    face = FilmedFace(640, 384)
    detector = face.detector("retinaface", 320)
    outputs = {
        one.name: np.full(one.concrete(2), 7, np.float32)
        for one in (*detector.spec.inputs, *detector.spec.outputs)
    }
    detector.bind(outputs, 2)
    (found,) = faces_among(outputs["boxes"][1], outputs["scores"][1], RETINAFACE_RULE)
    np.testing.assert_allclose(outputs["points"][1, found], face.points / 2, rtol=1e-6)
    x1, y1, x2, y2 = outputs["boxes"][1, found]
    assert x1 < outputs["points"][1, found, 0, 0] < x2
    assert y1 < outputs["points"][1, found, 4, 1] < y2
    silent = FreeEngine(spec_of("lnet"))
    lips = {
        one.name: np.full(one.concrete(1), 7, np.float32)
        for one in (*silent.spec.inputs, *silent.spec.outputs)
    }
    silent.bind(lips, 1)
    assert not lips["lips"].any()
    assert set(np.unique(free_engine("parsenet")._answers["classes"])) == {0, 1, 11}


def test_every_sample_of_both_modes_and_passes_is_there() -> None:
    times = outside_ms(SMALL, 2)
    assert list(times) == [FIRST, SECOND, BOTH]
    for modes in times.values():
        assert {mode: len(taken) for mode, taken in modes.items()} == {NATIVE: 2, UPSTREAM: 2}
        assert min(map(min, modes.values())) > 0
        # Half a dozen blurs of 101 x 101 against none: whatever the machine does meanwhile.
        assert min(modes[UPSTREAM]) > min(modes[NATIVE])
    assert times[BOTH][NATIVE][1] == times[FIRST][NATIVE][1] + times[SECOND][NATIVE][1]


def test_the_command_says_how_many_times_ours_the_original_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {
        FIRST: {NATIVE: [10.0] * 20, UPSTREAM: [60.0] * 20},
        SECOND: {NATIVE: [15.0] * 20, UPSTREAM: [150.0] * 20},
        BOTH: {NATIVE: [25.0] * 20, UPSTREAM: [210.0] * 20},
    }
    monkeypatch.setattr(outside, "outside_ms", lambda face, samples: known)
    assert run(["bench", "outside"]) == 0
    assert "6.0 to 10.0 times both our passes, 10.0 to 16.7 times the second" in capsys.readouterr().out
    assert run(["bench", "outside", "--width", "320", "--height", "240", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["median"] for row in rows] == [10, 60, 6, 15, 150, 10, 25, 210, 8.4]
    assert {row["n"] for row in rows} == {20}
    assert median_ms(outside_rows(SMALL, 20), SECOND, UPSTREAM) == 150


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--samples", "19"], "expected 20 or more"),
        (["--width", "200"], "at most as many as columns"),
        (["--height", "100"], "expected 180 rows"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "outside", *options]) == 2
    assert words in capsys.readouterr().err
