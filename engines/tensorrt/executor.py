"""TensorRT as an `Engine`: everything is set before the first frame, a run is one enqueue.

No machine of the test suite can run a plan. The order of the calls, the checks of what they return and that
a run is nothing but `execute_async_v3` are tested on a stand-in module with TensorRT's documented interface;
figures on a GPU come from `benchmarks/gpu_check`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.engine import Binding, Engine
from dubstream.engines.errors import ArtifactError, InternalError, UsageError
from dubstream.engines.store import StoredPlan
from dubstream.engines.tensorrt import compat
from dubstream.engines.tensorrt.environment import finish_default_stream
from dubstream.engines.tensorrt.interface import differences, signature
from dubstream.engines.tensorrt.watch import logger, tail

ALIGNMENT = 256
"""Bytes; TensorRT's requirement on every address it is given."""


class PlanRejectedError(InternalError):
    """TensorRT did not accept a plan whose bytes are intact: it has to be built again."""


class Workspace:
    """Scratch memory that several engines take turns in, because they all run on one stream.

    Args:
        allocate: gives a device array of that many bytes, an object with the address in `ptr`.
    """

    def __init__(self, allocate: Callable[[int], Any]) -> None:
        self._allocate = allocate
        self._bytes = 0
        self._stream: int | None = None
        self.block: Any = None

    def reserve(self, nbytes: int) -> None:
        """Make room for an engine that needs `nbytes`."""
        self._bytes = max(self._bytes, nbytes)

    def lend(self) -> tuple[Any, int]:
        """(block, its bytes), large enough for every reservation so far; allocated now if it is not yet.

        A block lent earlier stays valid for as long as the borrower keeps it.
        """
        if self._bytes and (self.block is None or self.block.nbytes < self._bytes):
            self.block = self._allocate(self._bytes)
        return self.block, self._bytes

    def enter(self, stream: int) -> None:
        """Hold every borrower to one stream: on two, engines would overwrite each other's scratch."""
        if self._stream is None:
            self._stream = stream
        elif self._stream != stream:
            raise InternalError(
                f"engines that share a workspace run on stream {self._stream}, received {stream}"
            )


class TensorrtEngine(Engine):
    """One network in one deserialised plan.

    Args:
        plan: from `PlanStore`, which verified its bytes; nothing else is deserialised.
        spec: the contract; the plan's tensors are checked against it.
        workspace: shared with the engines that run on the same stream.
        max_batch: see `Engine`; None for the plan's largest batch.

    Raises:
        DeviceError: no usable TensorRT.
        PlanRejectedError: TensorRT did not accept the plan.
        ArtifactError: the plan is of other tensors than `spec`.
        UsageError: `max_batch` out of range.
    """

    backend = "tensorrt"

    def __init__(
        self, plan: StoredPlan, spec: NetworkSpec, *, workspace: Workspace, max_batch: int | None = None
    ) -> None:
        if not isinstance(plan, StoredPlan):
            raise InternalError(
                f"received {type(plan).__name__}, only plans verified by the store are deserialised"
            )
        trt = compat.load()
        # The runtime has to outlive the engine; its switch for host code in plans stays off.
        self._runtime = trt.Runtime(logger(trt))
        self._engine = _deserialised(self._runtime, plan)
        _check(self._engine, spec, trt)
        largest = _largest_batch(self._engine, spec)
        if max_batch is not None and max_batch > largest:
            raise UsageError(
                f"{spec.name}: received max_batch {max_batch}, the plan was built for at most {largest}",
                hint=f"dubstream build {spec.name} --max-batch {max_batch}",
            )
        super().__init__(spec, max_batch=min(largest, spec.max_batch) if max_batch is None else max_batch)
        self._strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._workspace = workspace
        workspace.reserve(compat.device_memory_bytes(self._engine))

    def _bind(self, tensors: Mapping[str, Any], batch: int) -> Binding:
        context = self._engine.create_execution_context(self._strategy)
        if context is None:
            raise InternalError(f"{self.spec.name}: TensorRT made no execution context: {tail}")
        return TensorrtBinding(self.spec, context, tensors, batch, self._workspace)

    def _close(self) -> None:
        del self._engine, self._runtime


class TensorrtBinding(Binding):
    """An execution context whose shapes, addresses and scratch memory are set; see `Engine.bind`."""

    def __init__(
        self, spec: NetworkSpec, context: Any, tensors: Mapping[str, Any], batch: int, workspace: Workspace
    ) -> None:
        super().__init__(spec.name, tensors, batch)
        self._context = context
        self._workspace = workspace
        # The block is kept here too: the workspace may grow for a later engine, this context keeps its own.
        self._block, nbytes = workspace.lend()
        if nbytes:
            context.set_device_memory(_address(self._block, "workspace"), nbytes)
        self._select_profile()
        for tensor in spec.inputs:
            self._require(
                context.set_input_shape(tensor.name, tensor.concrete(batch)), f"shape of {tensor.name}"
            )
        unspecified = context.infer_shapes()
        if unspecified:
            raise InternalError(f"{spec.name}: TensorRT misses the shapes of {', '.join(unspecified)}")
        for tensor in spec.inputs + spec.outputs:
            address = _address(tensors[tensor.name], tensor.name)
            self._require(context.set_tensor_address(tensor.name, address), f"address of {tensor.name}")

    def _select_profile(self) -> None:
        """Select the plan's only profile, which versions do by themselves for the first context at least."""
        if self._context.active_optimization_profile != 0:
            self._require(self._context.set_optimization_profile_async(0, 0), "profile")
            finish_default_stream()

    def _run(self, handle: int | None) -> None:
        if not handle:
            raise InternalError(
                f"{self.name}: a TensorRT engine runs on a CUDA stream of its own, received none"
            )
        self._workspace.enter(handle)
        self._require(self._context.execute_async_v3(handle), "run")

    def _release(self) -> None:
        self._context = self._block = None

    def _require(self, accepted: bool, what: str) -> None:
        if not accepted:
            raise InternalError(
                f"{self.name}: TensorRT refused the {what} for a batch of {self.batch}: {tail}"
            )


def _deserialised(runtime: Any, plan: StoredPlan) -> Any:
    tail.clear()
    engine = runtime.deserialize_cuda_engine(plan.content)
    if engine is None:
        raise PlanRejectedError(
            f"TensorRT rejected the plan of {plan.key.network}: {tail}",
            hint=f"dubstream build {plan.key.network}",
        )
    return engine


def _check(engine: Any, spec: NetworkSpec, trt: Any) -> None:
    found: dict[str, dict[str, str]] = {"input": {}, "output": {}}
    for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
        side = "input" if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else "output"
        found[side][name] = signature(engine.get_tensor_dtype(name), engine.get_tensor_shape(name))
    wrong = differences(found, spec)
    if wrong:
        raise ArtifactError(
            f"the plan of {spec.name} does not fit its spec: {'; '.join(wrong)}",
            hint=f"dubstream build {spec.name}",
        )


def _largest_batch(engine: Any, spec: NetworkSpec) -> int:
    return min(int(engine.get_tensor_profile_shape(tensor.name, 0)[2][0]) for tensor in spec.inputs)


def _address(array: Any, name: str) -> int:
    address = int(array.ptr)
    if address % ALIGNMENT:
        raise InternalError(f"'{name}' lies at {address:#x}, expected an address on {ALIGNMENT} bytes")
    return address
