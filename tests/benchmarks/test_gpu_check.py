from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_half_networks import publish_half_toys
from toy_networks import publish_toys

from dubstream.benchmarks.gpu_check import __main__ as command
from dubstream.benchmarks.gpu_check import (
    engines,
    fidelity,
    full_quality,
    kernels,
    networks,
    streamer,
)
from dubstream.benchmarks.gpu_check.journal import Journal, NotRunError
from dubstream.benchmarks.gpu_check.kernel_bench import CupyFunction
from dubstream.benchmarks.gpu_check.setting import Setting
from dubstream.engines.specs import SPECS, spec_of
from dubstream.runtime.streaming.report import Span


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    publish_toys(folder)
    return folder


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("halves")
    publish_half_toys(folder)
    return folder


def dry_run(out: Path, *arguments: str) -> tuple[int, list[dict]]:
    code = command.main(["--device", "host", "--out", str(out), *arguments])
    return code, [json.loads(line) for line in out.read_text().splitlines()]


def test_a_dry_run_has_rows_of_every_part_that_are_no_gpu_figures(tmp_path: Path, toys: Path) -> None:
    code, rows = dry_run(tmp_path / "rows", "--artifacts", str(toys), "--networks", "dnet,ganimation")
    assert code == 0, [row for row in rows if row["status"] == "failed"]
    assert all(row["device"] == "host" and row["dry_run"] and "gpu" not in row for row in rows)
    found = {part: {row["status"] for row in rows if row["part"] == part} for part in command.PARTS}
    assert found == {
        "kernels": {"passed"},
        "streamer": {"passed"},
        "full": {"not run"},
        "engines": {"passed", "not run"},
        "fidelity": {"not run"},
        "networks": {"passed"},
    }
    for part in ("fidelity", "full"):
        assert "no fp16 artifact" in next(row["reason"] for row in rows if row["part"] == part)
    ran = {tuple(row["stage"].split("/", 2)[1:]) for row in rows if row["part"] == "networks"}
    variants = ("eager", "compile", "onnxruntime-cpu", "onnxruntime-cpu/driver")
    assert ran == {("ganimation", variant) for variant in variants}


def test_the_complete_system_is_streamed_and_its_frames_are_judged(
    tmp_path: Path, halves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--artifacts", str(halves), "--parts", "full"]
    code, rows = dry_run(tmp_path / "rows", *arguments)
    assert code == 0, [row for row in rows if row["status"] == "failed"]
    assert [row["stage"] for row in rows] == [
        f"full/{slots}-slots{end}" for slots in (2, 3) for end in ("", "/fps")
    ]
    assert (rows[0]["rendered"], rows[0]["unparsed"]) == (11, 0)
    assert {"look", "ganimation", "emotion", "align", "parsenet", "gfpgan", "finish"} <= set(
        rows[0]["ms_per_frame"]
    )
    truth = full_quality._by_the_host
    monkeypatch.setattr(
        full_quality, "_by_the_host", lambda *a: [np.roll(frame, 9, axis=1) for frame in truth(*a)]
    )
    code, rows = dry_run(tmp_path / "rows", *arguments)
    assert (code, {row["status"] for row in rows}) == (1, {"failed"})
    assert "dB from the CPU's, expected 30 or more" in rows[0]["reason"]


def test_frames_that_touch_the_ground_or_show_the_source_are_wrong() -> None:
    clip = full_quality.Clip(replace(full_quality.SMALL, frames=2))
    frames = [clip.frame(index) for index in range(2)]
    assert "shows its source" in full_quality._wrong(clip, frames)
    for index, frame in enumerate(frames):
        x1, y1, x2, y2 = clip.window(index)
        frame[y1:y2, x1:x2] ^= 1
    assert full_quality._wrong(clip, frames) is None
    frames[1][0, 0] ^= 1
    assert "frame 1 differs from its source in 1 pixels" in full_quality._wrong(clip, frames)


def test_what_would_begin_late_is_not_run(tmp_path: Path) -> None:
    code, rows = dry_run(tmp_path / "rows", "--parts", "kernels,engines", "--minutes", "0")
    assert code == 3
    assert [(row["stage"], row["status"]) for row in rows] == [("kernels", "not run"), ("engines", "not run")]
    assert {row["reason"] for row in rows} == {"no time was left"}


@pytest.mark.parametrize("batches", ["", "0", "1,x"])
def test_batches_are_numbers(batches: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--device", "host", "--batches", batches])
    assert "expected whole numbers from 1" in capsys.readouterr().err


def test_no_network_is_timed_above_its_most() -> None:
    setting = Setting("cuda:0")
    assert networks._batches(setting, "lnet") == [1, 4, 8, 16]
    assert networks._batches(setting, "enet") == [1, 4, 8, 12]
    assert networks._batches(setting, "gfpgan") == [1, 4, 8]


def test_fidelity_is_judged_on_real_footage_and_on_noise(tmp_path: Path, halves: Path) -> None:
    # The toy of GANimation edits at another size than the real one.
    names = [name for name in SPECS if name != "ganimation"]
    arguments = ["--artifacts", str(halves), "--parts", "fidelity", "--networks", ",".join(names)]
    code, rows = dry_run(tmp_path / "rows", *arguments)
    assert code == 0, [row for row in rows if row["status"] == "failed"]
    assert {(row["stage"].split("/")[1], row["case"]) for row in rows} == {
        (name, case) for name in names for case in ("real", "seeded")
    }
    publish_half_toys(tmp_path / "toys", broken="enet")
    arguments[1] = str(tmp_path / "toys")
    code, rows = dry_run(tmp_path / "rows", *arguments)
    assert (code, {row["stage"].split("/")[1] for row in rows if row["status"] == "failed"}) == (1, {"enet"})


def test_fidelity_sees_action_units_as_the_artifact_does() -> None:
    torch = pytest.importorskip("torch")
    from dubstream.export.face_pictures import GANimationPictures

    class Core(torch.nn.Module):
        def forward(self, image, aus):
            color = torch.tanh(3 * image.flip(1)) * aus.mean()
            attention = torch.sigmoid(5 * image[:, :1])
            return color, attention, attention * image + (1 - attention) * color

    inputs = fidelity.seeded_inputs(spec_of("ganimation", "fp16"), 2)
    full = {name: torch.from_numpy(values) for name, values in fidelity.planes("ganimation", inputs).items()}
    color, attention, _ = Core()(**full)
    outputs = {"color": color.numpy(), "attention": attention.numpy()}
    levels = GANimationPictures(Core(), torch.float32).levels(*map(torch.from_numpy, inputs.values()))
    found = fidelity.shown("ganimation", outputs, inputs)["fused"]
    # Positions up to 128 in float32 are off by up to 2**-18 on each axis, at gradients up to 255 levels.
    np.testing.assert_allclose(found, levels.numpy().transpose(0, 2, 3, 1), rtol=0, atol=2 * 255 * 2**-18)


def test_a_wrong_kernel_fails_its_row_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = list(kernels.kernel_cases(small=True))[:2]

    def off_by_one() -> dict[str, np.ndarray]:
        return {name: array + np.uint8(1) for name, array in honest[0].expected().items()}

    cases = [replace(honest[0], expected=off_by_one), honest[1]]
    monkeypatch.setattr(kernels, "kernel_cases", lambda *, small: iter(cases))
    monkeypatch.setattr(kernels, "face_cases", lambda *, small: iter(()))
    code, rows = dry_run(tmp_path / "rows", "--parts", "kernels")
    assert code == 1
    assert [row["status"] for row in rows if row["stage"] == f"kernels/{cases[0].name}"] == ["failed"]
    assert [row["status"] for row in rows if row["stage"] == f"kernels/{cases[1].name}"] == ["passed"]


def test_a_wrong_engine_fails(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = engines.session_outputs
    monkeypatch.setattr(
        engines, "session_outputs", lambda *a: {name: value + 0.01 for name, value in truth(*a).items()}
    )
    code, rows = dry_run(
        tmp_path / "rows", "--artifacts", str(toys), "--networks", "lnet", "--parts", "engines"
    )
    assert code == 1
    assert rows[0]["status"] == "failed"
    assert "max abs" in rows[0]["reason"]
    assert rows[0]["max_abs"] == pytest.approx(0.01, rel=1e-3)


def test_nothing_that_ran_is_no_success(tmp_path: Path) -> None:
    code, rows = dry_run(tmp_path / "rows", "--parts", "fidelity", "--networks", "dnet")
    assert (code, [row["status"] for row in rows]) == (3, ["not run"])


def test_lacking_and_failing_are_told_apart() -> None:
    journal = Journal({})
    with journal.part("one"):
        raise NotRunError("no such thing")
    with journal.part("two"):
        raise ValueError("broken")
    assert [(row["part"], row["status"], row["reason"]) for row in journal.rows] == [
        ("one", "not run", "no such thing"),
        ("two", "failed", "ValueError: broken"),
    ]
    assert journal.exit_code == 1


def test_a_trace_in_sequence_shows_no_overlap() -> None:
    steps = ("upload", streamer.STAGE, "download")
    spans = [
        Span(name, batch, 3.0 * batch + place, 3.0 * batch + place + 1)
        for batch in range(6)
        for place, name in enumerate(steps)
    ]
    assert set(streamer.overlap(spans).values()) == {0.0}
    closer = [
        replace(span, begin_s=span.begin_s - 2 * span.batch, end_s=span.end_s - 2 * span.batch)
        for span in spans
    ]
    assert set(streamer.overlap(closer).values()) == {1.0}


def test_mixed_up_slots_are_found() -> None:
    class Forgetful(streamer.WaitingStage):
        def enqueue(self, slot, stream) -> None:
            stream.launch(lambda: slot.device["result"].fill(7), streamer.STAGE)

    from dubstream.runtime.streaming.host import HostDevice

    with HostDevice() as device, pytest.raises(streamer.CheckFailedError, match="other pixels"):
        streamer.stream(device, Forgetful(1), replace(streamer.SMALL, batches=3), 2)


def test_cupy_gets_arguments_of_the_kernels_types() -> None:
    calls = []
    function = CupyFunction(lambda *a, **k: calls.append((a, k)))
    function.prepare("Pqif")
    function.prepared_async_call((1, 1, 1), (32, 8, 1), "stream", 1 << 40, 2, 3, 0.5)
    (_, _, packed), keywords = calls[0]
    assert [value.dtype.char for value in packed] == [np.dtype(t).char for t in ("u8", "i8", "i4", "f4")]
    assert keywords == {"stream": "stream"}
