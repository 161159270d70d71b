"""PyTorch to one ONNX file with a dynamic batch, checked against its spec."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec
from dubstream.engines.errors import InternalError
from dubstream.engines.storage import storage_errors
from dubstream.export.fidelity import Array, Run
from dubstream.export.precision import OPSET
from dubstream.export.session import onnx_session
from dubstream.export.simplify import drop_metadata, simplify

_TRACE_BATCH = 2  # torch.export takes 0 and 1 for constants


def export_onnx(module: torch.nn.Module, spec: NetworkSpec, path: Path, opset: int = OPSET) -> None:
    """Write `module` as an ONNX file and check it: `onnx.checker`, names, dtypes and axes of the spec.

    Args:
        module: takes and returns tensors in the order of `spec.inputs` and `spec.outputs`.
        path: the file to write; external data is not used (all networks are below protobuf's 2 GB).
        opset: version of the operators.

    Raises:
        InternalError: it cannot be converted, or the file does not fit the spec; lists all differences.
        StorageError: the file cannot be written.
    """
    batch = torch.export.Dim(BATCH, min=1)
    inputs = tuple(
        torch.zeros(tensor.concrete(_TRACE_BATCH), dtype=getattr(torch, tensor.dtype))
        for tensor in spec.inputs
    )
    with _quiet():
        try:
            program = torch.onnx.export(
                module.eval(),
                inputs,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                input_names=[tensor.name for tensor in spec.inputs],
                output_names=[tensor.name for tensor in spec.outputs],
                optimize=False,  # `simplify` does it
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise InternalError(f"{spec.name}: conversion to ONNX failed: {_first_cause(error)}") from error
    if program is None:
        raise InternalError(f"{spec.name}: the exporter returned nothing, expected an ONNX program")
    simplify(program.model)
    drop_metadata(program.model)
    needed = sum(tensor.nbytes for tensor in module.state_dict().values())
    with storage_errors(path, "writing", needed=needed):
        program.save(str(path), external_data=False)


def check_onnx(path: Path, spec: NetworkSpec, opset: int = OPSET) -> None:
    """Raise `InternalError` unless the file is valid ONNX and its interface is that of `spec`."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(f"{spec.name}: exported file is not valid: {str(error)[:200]}") from error
    model = onnx.load(str(path))
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    problems = [] if opsets == {"": opset} else [f"operator sets {opsets}, expected only {opset}"]
    for side, specs in (("input", spec.inputs), ("output", spec.outputs)):
        problems += _interface_problems(side, specs, getattr(model.graph, side))
    if problems:
        raise InternalError(f"{spec.name}: exported file does not fit its spec: {'; '.join(problems)}")


def torch_runner(module: torch.nn.Module, spec: NetworkSpec) -> Run:
    """Run a PyTorch module on numpy arrays by the spec's names."""

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            got = module(*(torch.from_numpy(inputs[tensor.name]) for tensor in spec.inputs))
        outputs = (got,) if isinstance(got, torch.Tensor) else tuple(got)
        return {tensor.name: out.numpy() for tensor, out in zip(spec.outputs, outputs, strict=True)}

    return run


def onnx_runner(path: Path, spec: NetworkSpec, threads: int) -> Run:
    """Run an ONNX file in ONNX Runtime on the CPU, on numpy arrays by the spec's names."""
    session = onnx_session(path, threads)
    names = [tensor.name for tensor in spec.outputs]

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def _interface_problems(side: str, specs: tuple[TensorSpec, ...], values: Any) -> list[str]:
    want = [(tensor.name, tensor.dtype, tensor.shape) for tensor in specs]
    got = [_described(value) for value in values]
    if [entry[0] for entry in want] != [entry[0] for entry in got]:
        return [f"{side}s {[entry[0] for entry in got]}, expected {[entry[0] for entry in want]}"]
    return [
        f"{side} {name}: {found[1]} {found[2]}, expected {dtype} {shape}"
        for (name, dtype, shape), found in zip(want, got, strict=True)
        if found[1:] != (dtype, shape)
    ]


def _described(value: Any) -> tuple[str, str, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    shape = tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)
    return value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress text, its deprecation warnings and torchvision notes off the terminal."""
    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"
