"""Export end to end: a file takes its name only after it was proved, once, whatever happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from export_toys import TOY, Deployed, FixedBatch, toy_recipe, toy_state

from dubstream.engines.artifact import Artifact, open_artifact
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import CheckpointError, FidelityError, InternalError, StorageError, UsageError
from dubstream.engines.specs import SPECS
from dubstream.export import produce as produce_module
from dubstream.export.command import export_networks
from dubstream.export.recipes import RECIPES
from dubstream.export.steps import STEPS, ExportEvent

HERE = Path(__file__).parent


def export(folder: Path, recipe: Any = None, **options: Any) -> Artifact:
    settings = {"checkpoints": None, "weights": "seeded", "threads": 1, **options}
    recipe = recipe or toy_recipe()
    return export_networks([], artifacts=folder, recipes={recipe.spec.name: recipe}, **settings)[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, list[ExportEvent]]:
    events: list[ExportEvent] = []
    folder = tmp_path_factory.mktemp("artifacts") / "new" / "folder"
    return export(folder, on_progress=events.append), events


def run(artifact: Artifact, batch: int) -> list[Any]:
    session = ort.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    feeds = {tensor.name: np.full(tensor.concrete(batch), 0.5, np.float32) for tensor in TOY.inputs}
    return list(session.run([tensor.name for tensor in TOY.outputs], feeds))


def test_published_file_fits_its_spec(made: tuple[Artifact, list[ExportEvent]]) -> None:
    artifact, _ = made
    assert open_artifact(artifact.path.parent, TOY) == artifact
    model = onnx.load(str(artifact.path))
    assert [value.name for value in model.graph.input] == ["image", "driver"]
    assert [value.name for value in model.graph.output] == ["picture", "code"]
    assert [entry.version for entry in model.opset_import] == [20]
    assert [output.shape for output in run(artifact, 7)] == [(7, 5, 8, 8), (7, 5)]


def test_published_file_tells_nothing_of_this_machine(made: tuple[Artifact, list[ExportEvent]]) -> None:
    raw = made[0].path.read_bytes()
    assert b"stack_trace" not in raw
    assert str(HERE).encode() not in raw
    assert b".py" not in raw


def test_sidecar_records_where_it_came_from_and_how_near_it_is(
    made: tuple[Artifact, list[ExportEvent]],
) -> None:
    sidecar = made[0].sidecar
    assert (sidecar.source, sidecar.opset, sidecar.precision) == ("seeded:retalk", 20, "fp32")
    assert {"torch", "onnx", "onnxruntime"} <= set(sidecar.tools)
    assert len(sidecar.fidelity) == 4 * 2
    assert all(row.tolerance_share <= 1 and row.cosine > 0.999999 for row in sidecar.fidelity)
    assert 0 < max(row.max_abs for row in sidecar.fidelity) < 1e-5


def test_seeded_weights_are_announced_and_steps_counted(
    made: tuple[Artifact, list[ExportEvent]],
) -> None:
    events = made[1]
    assert (events[0].event, "seeded:retalk" in events[0].message) == ("start", True)
    assert [event.step for event in events if event.event == "step"] == list(STEPS)
    assert [event.position for event in events[1:]] == list(range(len(STEPS) + 1))
    assert all(event.total == len(STEPS) for event in events[1:])


def test_no_temporary_file_is_left(made: tuple[Artifact, list[ExportEvent]]) -> None:
    names = sorted(path.name for path in made[0].path.parent.iterdir())
    assert names == [".lock", "toy.fp32.json", "toy.fp32.onnx"]


def test_valid_artifacts_are_kept_and_others_remade(
    made: tuple[Artifact, list[ExportEvent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def produce(recipe: Any, *_: Any, **__: Any) -> Artifact:
        calls.append(recipe.spec.name)
        return made[0]

    monkeypatch.setattr(produce_module, "produce", produce)
    folder = made[0].path.parent
    events: list[ExportEvent] = []
    assert export(folder, on_progress=events.append) == made[0]
    assert ([event.event for event in events], calls) == (["start", "kept"], [])
    export(folder, force=True)
    assert calls == ["toy"]
    made[0].path.write_bytes(raw := made[0].path.read_bytes() + b"x")
    export(folder)
    assert calls == ["toy", "toy"]
    made[0].path.write_bytes(raw[:-1])
    export(folder, toy_recipe(spec=replace(TOY, max_batch=9)))
    assert calls == ["toy", "toy", "toy"]


def test_checkpoint_is_exported_recorded_and_its_change_noticed(tmp_path: Path) -> None:
    artifacts, checkpoints = tmp_path / "artifacts", tmp_path / "checkpoints"
    checkpoints.mkdir()
    state = {f"module.{name}": tensor for name, tensor in toy_state().items()}
    torch.save({"state_dict": {**state, "module.note": torch.zeros(1)}}, checkpoints / "Toy.pth")
    options = {"checkpoints": checkpoints, "weights": None}
    with pytest.raises(CheckpointError, match="1 unexpected: note"):
        export(artifacts, **options)
    assert not list(artifacts.glob("*.onnx"))
    artifact = export(artifacts, allow_extra_keys=True, **options)
    assert artifact.source.startswith("checkpoint:Toy.pth:")
    assert artifact.sidecar.extra_keys == ("note",)
    with pytest.raises(CheckpointError, match="1 unexpected: note"):
        export(artifacts, **options)  # an artifact with extra keys does not satisfy who forbids them
    torch.save({"state_dict": {name: tensor * 2 for name, tensor in state.items()}}, checkpoints / "Toy.pth")
    changed = export(artifacts, **options)
    assert changed.digest != artifact.digest
    assert changed.sidecar.extra_keys == ()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (1e-4, "uniform/3 code: max abs 0.0001 (allowed 1e-05)"),
        (float("nan"), "uniform/3 code: 0 non-finite values in the original, 15 in the export"),
    ],
)
def test_planted_faults_are_refused_and_leave_no_file(tmp_path: Path, error: float, message: str) -> None:
    with pytest.raises(FidelityError) as caught:
        export(tmp_path, toy_recipe(lambda plain: Deployed(plain, error)))
    assert message in caught.value.message
    assert caught.value.message.count(" code: ") == 4
    assert "picture" not in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


SMALLER = replace(TOY, outputs=(replace(TOY.outputs[0], shape=("batch", 5, 4, 4)), TOY.outputs[1]))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            toy_recipe(FixedBatch),
            r"input image: float32 \(2, 3, 8, 8\), expected float32 \('batch', 3, 8, 8\)",
        ),
        (
            toy_recipe(spec=SMALLER),
            r"output picture: float32 \('batch', 5, 8, 8\), expected float32 \('batch', 5, 4, 4\)",
        ),
    ],
    ids=["fixed batch", "other shape"],
)
def test_files_that_do_not_fit_the_spec_are_refused(tmp_path: Path, recipe: Any, message: str) -> None:
    with pytest.raises(InternalError, match=message):
        export(tmp_path, recipe)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("error", "seen"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left on device"), StorageError)],
)
def test_interruption_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, seen: type[BaseException]
) -> None:
    def interrupted(path: Path, spec: NetworkSpec) -> None:
        assert path.stat().st_size > 0
        raise error

    monkeypatch.setattr(produce_module, "check_onnx", interrupted)
    with pytest.raises(seen):
        export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_leftovers_of_killed_runs_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise CheckpointError("stop here")

    stale, unrelated = tmp_path / ".toy.fp32.99999.part", tmp_path / ".holiday.mp4.part"
    for path in (stale, unrelated):
        path.write_bytes(b"x")
    monkeypatch.setattr(produce_module, "_convert", stop)
    with pytest.raises(CheckpointError, match="stop here"):
        export(tmp_path)
    assert (stale.exists(), unrelated.exists()) == (False, True)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["xnet"], {"weights": "seeded"}, "unknown network 'xnet', expected one of dnet"),
        (["dnet"], {}, "received neither"),
        (["dnet"], {"weights": "seeded", "checkpoints": Path("x")}, "received both"),
        (["dnet"], {"weights": "trained"}, "'trained', expected 'seeded'"),
        (["dnet"], {"weights": "seeded", "threads": 0}, "--threads 0"),
    ],
)
def test_usage_errors(tmp_path: Path, names: list[str], options: dict[str, Any], message: str) -> None:
    settings = {"checkpoints": None, "weights": None, **options}
    with pytest.raises(UsageError, match=message):
        export_networks(names, artifacts=tmp_path / "none", **settings)
    assert not (tmp_path / "none").exists()


def test_missing_torch_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dubstream.export.produce", None)
    with pytest.raises(UsageError, match=r"produce is not installed.*dubstream\[export\]"):
        export(tmp_path)


def test_missing_checkpoints_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected DNet\.pt, LNet\.pth, found none"):
        export_networks(["dnet", "lnet"], checkpoints=tmp_path, weights=None, artifacts=tmp_path / "a")


def test_all_stands_for_every_network(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        export_networks(["all"], checkpoints=tmp_path, weights=None, artifacts=tmp_path / "a")
    assert all(spec.checkpoint in str(caught.value) for spec in SPECS.values())


def test_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="creating"):
        export(tmp_path / "file" / "a")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "dubstream.export", *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=120)


def test_command_reports_errors_on_one_line(tmp_path: Path) -> None:
    done = command("xnet", "--weights", "seeded", "--artifacts", str(tmp_path), "--json-progress")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown network 'xnet'")
    assert done.stderr.count("\n") == 1
    event = json.loads(done.stdout)
    assert (event["event"], event["exit_code"]) == ("error", 2)
    missing = command("dnet", "--weights", "seeded")
    assert (missing.returncode, "--artifacts DIR" in missing.stderr) == (2, True)


def test_termination_while_converting_leaves_no_file(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "dubstream.export", "recon", "--weights", "seeded", "--json-progress"]
    call += ["--threads", "1", "--artifacts", str(tmp_path)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["step"] == "convert":
                break
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


TWO = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
from export_toys import toy_recipe
from dubstream.export.command import export_networks
export_networks([], checkpoints=None, weights="seeded", threads=1, artifacts=pathlib.Path(sys.argv[1]),
                recipes={"toy": toy_recipe()}, on_progress=lambda event: print(event.event, flush=True))
"""


def test_two_processes_export_once(tmp_path: Path) -> None:
    call = [sys.executable, "-c", TWO, str(tmp_path), str(HERE)]
    both = [subprocess.Popen(call, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    events = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    endings = sorted(words[-1] for words in events)
    assert endings == ["done", "kept"]
    assert all("step" not in words for words in events if words[-1] == "kept")
    open_artifact(tmp_path, TOY)


def test_every_spec_has_a_recipe() -> None:
    assert list(RECIPES) == list(SPECS)
    assert all(recipe.spec is SPECS[name] for name, recipe in RECIPES.items())


@pytest.mark.slow
def test_the_smallest_real_network_exports(tmp_path: Path) -> None:
    done = command(
        "recon", "--weights", "seeded", "--artifacts", str(tmp_path), "--threads", "2", "--json-progress"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "done"
    artifact = open_artifact(tmp_path, SPECS["recon"])
    assert max(row.tolerance_share for row in artifact.sidecar.fidelity) <= 1
    assert artifact.path == tmp_path / "recon.fp32.onnx"
