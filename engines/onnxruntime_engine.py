"""ONNX Runtime on the CPU: the embedded default.

Inputs and outputs are bound by address (IO binding), so a run reads and writes the caller's arrays: no
copies, and no allocation but ONNX Runtime's own arena, which has its size after the first run of a batch
size. The interpreter lock is free while a network runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from dubstream.engines.contract import NetworkSpec, TensorSpec
from dubstream.engines.engine import Binding, Engine
from dubstream.engines.errors import ArtifactError, DeviceError, InternalError, UsageError

PROVIDER = "CPUExecutionProvider"

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


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
        self._session: Any = _open_session(model, spec.name, self.threads, spin)
        faults = _session_faults(self._session, spec)
        if faults:
            raise ArtifactError(
                f"the model given for '{spec.name}' does not fit its spec: {'; '.join(faults)}",
                hint=f"remake it: dubstream export {spec.name}",
            )

    def _bind(self, tensors: Mapping[str, Any], batch: int) -> Binding:
        return _OnnxRuntimeBinding(self._session, self.spec, tensors, batch)

    def _close(self) -> None:
        self._session = None


class _OnnxRuntimeBinding(Binding):
    def __init__(self, session: Any, spec: NetworkSpec, tensors: Mapping[str, Any], batch: int) -> None:
        super().__init__(spec.name, tensors, batch)
        self._session = session
        self._io: Any = session.io_binding()
        self._options = _import_onnxruntime().RunOptions()
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


def _open_session(model: Path | bytes, name: str, threads: int, spin: bool) -> Any:
    ort = _import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors; they are raised as well
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = ort.InferenceSession(source, options, providers=[PROVIDER])
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        raise ArtifactError(
            f"ONNX Runtime {ort.__version__} cannot load '{name}': {error}",
            hint=f"remake it: dubstream export {name}",
        ) from error
    if session.get_providers()[:1] != [PROVIDER]:
        raise DeviceError(f"'{name}': received providers {session.get_providers()}, expected {PROVIDER}")
    return session


def _import_onnxruntime() -> Any:
    installed = [name for name in _DISTRIBUTIONS if _is_installed(name)]
    if len(installed) > 1:
        raise DeviceError(
            f"both {' and '.join(installed)} are installed; they overwrite each other's files",
            hint=f"pip uninstall -y {' '.join(installed)}, then install one: pip install onnxruntime",
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            f"ONNX Runtime cannot be imported: {error}", hint='pip install "dubstream[cpu]"'
        ) from error
    return onnxruntime


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _session_faults(session: Any, spec: NetworkSpec) -> list[str]:
    return _side_faults("input", session.get_inputs(), spec.inputs) + _side_faults(
        "output", session.get_outputs(), spec.outputs
    )


def _side_faults(side: str, found: Sequence[Any], expected: Sequence[TensorSpec]) -> list[str]:
    by_name = {node.name: node for node in found}
    wanted = {tensor.name for tensor in expected}
    faults = [f"no {side} '{name}'" for name in sorted(wanted - by_name.keys())]
    faults += [f"unknown {side} '{name}'" for name in sorted(by_name.keys() - wanted)]
    for tensor in expected:
        node = by_name.get(tensor.name)
        if node is not None and not _fits(node, tensor):
            faults.append(
                f"{side} '{tensor.name}' is {_DTYPES.get(node.type, node.type)} {node.shape}, "
                f"expected {tensor.dtype} {list(tensor.shape)}"
            )
    return faults


def _fits(node: Any, tensor: TensorSpec) -> bool:
    # A symbolic axis is a string, or None where the model gives it no name.
    batch_is_free = len(node.shape) > 0 and not isinstance(node.shape[0], int)
    same_items = tuple(node.shape[1:]) == tensor.shape[1:]
    return _DTYPES.get(node.type) == tensor.dtype and batch_is_free and same_items
