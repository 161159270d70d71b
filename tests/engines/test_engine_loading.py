"""From an artifact folder to a running engine: verified first, parsed afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_onnxruntime_engine import InlineStream, make_arrays, make_model, make_spec

from dubstream.engines import loading
from dubstream.engines.artifact import artifact_paths, digest_files, publish_artifact
from dubstream.engines.errors import ArtifactError
from dubstream.engines.loading import load_engine
from dubstream.engines.sidecar import Sidecar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spec = make_spec()
    onnx_path, _ = artifact_paths(tmp_path, spec.name)
    part = tmp_path / "toy.part"
    part.write_bytes(make_model())
    files, digest = digest_files([part], [onnx_path.name])
    sidecar = Sidecar(
        network=spec.name,
        precision="fp32",
        recipe="test",
        recipe_version=1,
        spec=spec.as_json(),
        files=files,
        sha256=digest,
        source="seeded:test",
        ignored_keys={},
        extra_keys=(),
        opset=20,
        tools={},
        fidelity=(),
        created="2026-01-01T00:00:00+00:00",
    )
    publish_artifact(part, tmp_path, sidecar)
    return tmp_path


def test_an_artifact_becomes_an_engine(folder: Path) -> None:
    arrays = make_arrays()
    with load_engine(folder, make_spec(), threads=1, max_batch=3) as engine:
        assert (engine.backend, engine.max_batch) == ("onnxruntime-cpu", 3)
        engine.bind(arrays, 3).enqueue(InlineStream())
    np.testing.assert_array_equal(arrays["double"][:3], 2 * arrays["left"][:3])


def test_a_damaged_artifact_is_refused_before_anything_parses_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[object] = []
    monkeypatch.setattr(loading, "OnnxRuntimeEngine", lambda *args, **options: parsed.append(args))
    path, _ = artifact_paths(folder, "toy")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ArtifactError, match="expected SHA-256"):
        load_engine(folder, make_spec())
    assert parsed == []


def test_importing_the_engine_and_the_streamer_loads_no_backend() -> None:
    heavy = "onnxruntime torch onnx tensorrt librosa av cv2"
    code = (
        "import dubstream.engines.loading, dubstream.runtime.streaming, sys; "
        f"sys.exit(' '.join(name for name in '{heavy}'.split() if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
