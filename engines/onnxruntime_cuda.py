"""ONNX Runtime on a GPU: the second GPU backend, and the way to run a network TensorRT does not take.

Inputs and outputs are bound to the caller's device addresses; a run is enqueued without waiting, on a stream
of the session's own that is tied into the caller's by events. Nothing computes on the CPU unnoticed: a
session without the CUDA provider, or one that placed more than shape arithmetic on the CPU, is refused.

No machine of the test suite can run the CUDA provider. Options, checks and the order of the calls are tested
on a stand-in for ONNX Runtime, the ties of the streams on real cuda-bindings over a fake driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dubstream.engines.contract import NetworkSpec, TensorSpec
from dubstream.engines.cuda_stream import SideStream
from dubstream.engines.engine import Binding, Engine
from dubstream.engines.errors import DeviceError, InternalError, UsageError
from dubstream.engines.onnxruntime_session import import_onnxruntime, open_session

PROVIDER = "CUDAExecutionProvider"

ConvSearch = Literal["exhaustive", "heuristic", "default"]

# What ONNX Runtime itself prefers to run on the CPU: integers that become shapes.
_SHAPE_ARITHMETIC = frozenset(
    {
        *("Shape", "Size", "Gather", "Slice", "Squeeze", "Unsqueeze", "Concat", "Reshape", "Identity"),
        *("Cast", "Add", "Sub", "Mul", "Div", "Range", "Constant", "ConstantOfShape", "Equal", "Where"),
    }
)
_NO_PROVIDER = (
    "pip uninstall -y onnxruntime onnxruntime-gpu; pip install 'onnxruntime-gpu[cuda,cudnn]'; "
    "and look at nvidia-smi"
)


class OnnxRuntimeCudaEngine(Engine):
    """One network in one ONNX Runtime session on a GPU.

    Make it, bind it and close it in a thread attached to the device. Runs cannot be captured in a CUDA graph:
    the session has a stream of its own.

    Args:
        model: ONNX file or its bytes, **verified by the caller** (`dubstream.engines.artifact`).
        spec: the contract; names, dtypes and shapes of the model are checked against it.
        index: number of the CUDA device the thread is attached to.
        tf32: let float32 convolutions and products round their inputs to TF32 (10 bits of mantissa, like
            float16): faster, and no longer within the tolerances of a float32 artifact. Off by default.
        conv_search: how cuDNN chooses algorithms: ``heuristic`` asks it, ``exhaustive`` measures at the first
            run of every batch size (seconds each), ``default`` takes the same for all.
        memory_limit: bytes ONNX Runtime's arena may take; None for all there is.
        max_batch: see `Engine`.

    Raises:
        ArtifactError: not a model ONNX Runtime can load, or one that does not fit `spec`.
        DeviceError: no ONNX Runtime with a working CUDA provider, or layers it would run on the CPU.
        UsageError: an option out of range.
    """

    backend = "onnxruntime-cuda"
    outputs_optional = True

    def __init__(
        self,
        model: Path | bytes,
        spec: NetworkSpec,
        *,
        index: int = 0,
        tf32: bool = False,
        conv_search: ConvSearch = "heuristic",
        memory_limit: int | None = None,
        max_batch: int | None = None,
    ) -> None:
        super().__init__(spec, max_batch=max_batch)
        if memory_limit is not None and memory_limit < 1:
            raise UsageError(
                f"{spec.name}: received a memory limit of {memory_limit} bytes, expected 1 or more"
            )
        self._ort = import_with_cuda()
        self._index = index
        self._side = SideStream()
        try:
            options = _options(index, self._side.handle, tf32, conv_search, memory_limit)
            self._session: Any = open_session(
                self._ort, model, spec, PROVIDER, options=options,
                settings={"session.record_ep_graph_assignment_info": "1"},
            )  # fmt: skip
            _check_placement(self._session, spec.name)
        except BaseException as error:
            self._side.close()
            if isinstance(error, DeviceError) and error.hint is None:
                error.hint = _NO_PROVIDER
            raise

    def _bind(self, tensors: Mapping[str, Any], batch: int) -> Binding:
        return _CudaBinding(self, self._session, self._side, tensors, batch)

    def _close(self) -> None:
        # The session's memory is freed behind its last run, so the stream goes after it.
        self._session = None
        self._side.close()


class _CudaBinding(Binding):
    def __init__(
        self,
        engine: OnnxRuntimeCudaEngine,
        session: Any,
        side: SideStream,
        tensors: Mapping[str, Any],
        batch: int,
    ) -> None:
        spec = engine.spec
        super().__init__(spec.name, tensors, batch)
        self._session, self._side = session, side
        self._io: Any = session.io_binding()
        self._options = engine._ort.RunOptions()
        # Otherwise every run would wait on the host for its own end.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        for tensor in spec.inputs:
            self._io.bind_input(*_address(tensor, tensors[tensor.name], batch, engine._index))
        for tensor in spec.outputs:
            if tensor.name in tensors:
                self._io.bind_output(*_address(tensor, tensors[tensor.name], batch, engine._index))

    def _run(self, handle: int | None) -> None:
        if self._io is None:
            raise InternalError(f"binding of '{self.name}' was released before its work began")
        if not handle:
            raise InternalError(f"{self.name}: a CUDA engine runs on a CUDA stream, received none")
        self._side.within(handle, self._enqueue)

    def _enqueue(self) -> None:
        self._session.run_with_iobinding(self._io, self._options)

    def _release(self) -> None:
        self._io = self._session = None


def import_with_cuda() -> Any:
    """The module of ONNX Runtime, which has the CUDA provider; `DeviceError` where it has not."""
    ort = import_onnxruntime("gpu")
    if PROVIDER not in ort.get_available_providers():
        raise DeviceError(
            f"this ONNX Runtime {ort.__version__} has no CUDA provider, only "
            f"{', '.join(ort.get_available_providers())}",
            hint=_NO_PROVIDER,
        )
    # CUDA's libraries from pip packages are not on the loader's path.
    ort.preload_dlls()
    return ort


def _options(
    index: int, stream: int, tf32: bool, conv_search: ConvSearch, memory_limit: int | None
) -> dict[str, str]:
    if conv_search not in ("exhaustive", "heuristic", "default"):
        raise UsageError(f"received conv_search '{conv_search}', expected exhaustive, heuristic or default")
    options = {
        "device_id": str(index),
        "user_compute_stream": str(stream),
        "use_tf32": str(int(tf32)),
        "cudnn_conv_algo_search": conv_search.upper(),
        # The arena grows by what is asked for, not by powers of two: other engines share the device.
        "arena_extend_strategy": "kSameAsRequested",
    }
    if memory_limit is not None:
        options["gpu_mem_limit"] = str(memory_limit)
    return options


def _check_placement(session: Any, name: str) -> None:
    """Refuse a session that computes on the CPU; the list of placements exists since ONNX Runtime 1.24."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise DeviceError(
            f"'{name}': this ONNX Runtime cannot say where it runs each layer",
            hint="pip install --upgrade onnxruntime-gpu",
        )
    elsewhere = sorted(
        {
            node.op_type
            for part in session.get_provider_graph_assignment_info()
            if part.ep_name != PROVIDER
            for node in part.get_nodes()
            if node.op_type not in _SHAPE_ARITHMETIC
        }
    )
    if elsewhere:
        raise DeviceError(
            f"'{name}': ONNX Runtime would run {', '.join(elsewhere)} on the CPU",
            hint="use --backend tensorrt, or --backend onnxruntime on purpose",
        )


def _address(
    tensor: TensorSpec, array: Any, batch: int, index: int
) -> tuple[str, str, int, type[Any], tuple[int, ...], int]:
    if not hasattr(array, "ptr"):
        raise UsageError(f"'{tensor.name}': received a {type(array).__name__}, expected device memory")
    dtype = np.dtype(array.dtype).type
    return tensor.name, "cuda", index, dtype, tensor.concrete(batch), int(array.ptr)
