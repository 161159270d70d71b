"""ONNX Runtime on the CPU: the embedded default.

Inputs and outputs are bound by address (IO binding), so a run reads and writes the caller's arrays: no
copies, and no allocation but ONNX Runtime's own arena, which has its size after the first run of a batch
size. The interpreter lock is free while a network runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dubstream.engines.contract import NetworkSpec, TensorSpec
from dubstream.engines.engine import Binding, Engine
from dubstream.engines.errors import InternalError, UsageError
from dubstream.engines.onnxruntime_session import import_onnxruntime, open_session

PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeEngine(Engine):
    """One network in one ONNX Runtime session on the CPU.

    Args:
        model: ONNX file or its bytes, **verified by the caller** (`dubstream.engines.artifact`): damaged
            files can load here and compute wrong values.
        spec: the contract; names, dtypes and shapes of the model are checked against it.
        threads: threads one run uses; None for all CPUs this process may use.
        spin: let threads spin while they wait for their next piece of a run; between runs they always
            sleep. It can pay on a machine of one's own. On two shared cores it cost 20 % more CPU time
            and won nothing, and decoding and encoding want the same cores: off by default.
        max_batch: see `Engine`.

    Raises:
        ArtifactError: not a model ONNX Runtime can load, or one that does not fit `spec`.
        DeviceError: ONNX Runtime is missing, installed twice, or has no CPU provider.
        UsageError: `threads` or `max_batch` out of range.
    """

    backend = "onnxruntime-cpu"
    outputs_optional = True

    def __init__(
        self,
        model: Path | bytes,
        spec: NetworkSpec,
        *,
        threads: int | None = None,
        spin: bool = False,
        max_batch: int | None = None,
    ) -> None:
        super().__init__(spec, max_batch=max_batch)
        if threads is not None and threads < 1:
            raise UsageError(f"{spec.name}: received {threads} threads, expected at least 1")
        self.threads = threads or usable_cpus()
        settings = {
            "session.intra_op.allow_spinning": str(int(spin)),
            "session.force_spinning_stop": "1",
        }
        ort = import_onnxruntime("cpu")
        self._session: Any = open_session(ort, model, spec, PROVIDER, settings=settings, threads=self.threads)

    def _bind(self, tensors: Mapping[str, Any], batch: int) -> Binding:
        return _OnnxRuntimeBinding(self._session, self.spec, tensors, batch)

    def _close(self) -> None:
        self._session = None


class _OnnxRuntimeBinding(Binding):
    def __init__(self, session: Any, spec: NetworkSpec, tensors: Mapping[str, Any], batch: int) -> None:
        super().__init__(spec.name, tensors, batch)
        self._session = session
        self._io: Any = session.io_binding()
        self._options = import_onnxruntime("cpu").RunOptions()
        for tensor in spec.inputs:
            self._io.bind_input(*_address(tensor, tensors[tensor.name], batch))
        for tensor in spec.outputs:
            if tensor.name in tensors:
                self._io.bind_output(*_address(tensor, tensors[tensor.name], batch))

    def _run(self, handle: int | None) -> None:
        if self._io is None:
            raise InternalError(f"binding of '{self.name}' was released before its work began")
        self._session.run_with_iobinding(self._io, self._options)

    def interrupt(self) -> None:
        """Make a run that has begun fail at its next node."""
        # The run in progress holds the old options; the next one starts with fresh ones.
        begun, self._options = self._options, type(self._options)()
        begun.terminate = True

    def _release(self) -> None:
        self._io = self._session = None


def usable_cpus() -> int:
    """CPUs this process may run on; fewer than the machine has under taskset or in a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _address(
    tensor: TensorSpec, array: Any, batch: int
) -> tuple[str, str, int, type[Any], tuple[int, ...], int]:
    if not isinstance(array, np.ndarray):
        raise UsageError(f"'{tensor.name}': received a {type(array).__name__}, expected host memory (numpy)")
    return tensor.name, "cpu", 0, array.dtype.type, tensor.concrete(batch), array.ctypes.data
