"""ONNX Runtime on the CPU, as export's checks use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort


def onnx_session(model: Path | onnx.ModelProto, threads: int, *, optimised: bool = True) -> Any:
    """A session of ONNX Runtime on the CPU; `optimised` False: every node is run as it stands."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
