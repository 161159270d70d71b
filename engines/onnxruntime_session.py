"""What the ONNX Runtime engines share: the import, the session, and its check against the spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from dubstream.engines.contract import NetworkSpec, TensorSpec
from dubstream.engines.errors import ArtifactError, DeviceError

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


def import_onnxruntime(extra: str) -> Any:
    """The module, imported now.

    Args:
        extra: our extra that brings it, ``cpu`` or ``gpu``, for the hint.

    Raises:
        DeviceError: it is missing, or both of its builds are installed.
    """
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
            f"ONNX Runtime cannot be imported: {error}", hint=f'pip install "dubstream[{extra}]"'
        ) from error
    return onnxruntime


def open_session(
    ort: Any,
    model: Path | bytes,
    spec: NetworkSpec,
    provider: str,
    *,
    settings: Mapping[str, str],
    options: Mapping[str, str] | None = None,
    threads: int = 1,
) -> Any:
    """A session that runs `model` on `provider` and on nothing else, checked against `spec`.

    Args:
        ort: the module.
        model: ONNX file or its bytes, verified by the caller.
        spec: the contract.
        provider: ONNX Runtime's name of the execution provider.
        settings: session configuration entries.
        options: the provider's own.
        threads: of one run on the CPU.

    Raises:
        ArtifactError: not a model ONNX Runtime can load, or one that does not fit `spec`.
        DeviceError: the session came up on another provider.
    """
    configuration = ort.SessionOptions()
    configuration.intra_op_num_threads = threads
    configuration.inter_op_num_threads = 1
    configuration.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    configuration.log_severity_level = 3  # errors; they are raised as well
    for key, value in settings.items():
        configuration.add_session_config_entry(key, value)
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = ort.InferenceSession(source, configuration, providers=[(provider, dict(options or {}))])
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        raise ArtifactError(
            f"ONNX Runtime {ort.__version__} cannot load '{spec.name}': {error}",
            hint=f"remake it: dubstream export {spec.name}",
        ) from error
    if session.get_providers()[:1] != [provider]:
        raise DeviceError(f"'{spec.name}': received providers {session.get_providers()}, expected {provider}")
    faults = _faults("input", session.get_inputs(), spec.inputs)
    faults += _faults("output", session.get_outputs(), spec.outputs)
    if faults:
        raise ArtifactError(
            f"the model given for '{spec.name}' does not fit its spec: {'; '.join(faults)}",
            hint=f"remake it: dubstream export {spec.name}",
        )
    return session


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _faults(side: str, found: Sequence[Any], expected: Sequence[TensorSpec]) -> list[str]:
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
