"""ONNX Runtime on the CPU with the settings of our engine, for graphs that fit no spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dubstream.engines.onnxruntime_engine import PROVIDER
from dubstream.engines.onnxruntime_session import import_onnxruntime


def cpu_session(model: Path | bytes, threads: int, *, profile: Path | None = None) -> Any:
    """A session; with `profile`, a prefix of file names, it writes what every node took.

    Raises:
        DeviceError: ONNX Runtime is missing or installed twice.
    """
    ort = import_onnxruntime("cpu")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=[PROVIDER])
