"""What the machine can do, measured between the samples of what is judged by it.

| peak | what |
|---|---|
| conv | a large 3x3 convolution, the networks' main work; also the anchor of comparisons between runs |
| matmul | a large matrix product |
| copy | a large element-wise pass: bytes read plus bytes written; the anchor for memory |

They run as engines of ONNX Runtime, so their threads, their clock and their device are those of the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from dubstream.benchmarks.bench.method.rounds import Series
from dubstream.benchmarks.bench.method.statistics import Samples
from dubstream.benchmarks.bench.networks.variants import Resident, seeded_batch
from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.engine import Engine
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.runtime.streaming.device import Device

CONV, MATMUL, COPY = "conv", "matmul", "copy"
RUNS = 2
"""Of a peak in one round."""


@dataclass(frozen=True)
class PeakSizes:
    """How large the peaks are; large enough for their device to be busy, small enough to run every round.

    Attributes:
        channels, side: of the convolution's square picture.
        matmul: rows, columns and inner length.
        copy: float32 numbers.
        batch: items of the convolution and rows of the copy.
    """

    channels: int
    side: int
    matmul: int
    copy: int
    batch: int


ON_CPU = PeakSizes(channels=256, side=64, matmul=1280, copy=1 << 24, batch=1)
ON_GPU = PeakSizes(channels=512, side=128, matmul=8192, copy=1 << 25, batch=8)


@dataclass(frozen=True)
class Peak:
    """One of the three.

    Attributes:
        name: see the module.
        run: compute and wait, `RUNS` times; returns the seconds of the fastest one: a peak is what can be
            reached. As an anchor all of them count, because a preempted network is not the fastest, either.
        macs: multiply-accumulates of one run.
        nbytes: bytes read and written by one run, as far as it is judged by them.
    """

    name: str
    run: Callable[[], float]
    macs: int
    nbytes: int

    def rate(self, seconds: float) -> float:
        """GFLOP/s, or GB/s of the copy."""
        return (2 * self.macs or self.nbytes) / seconds / 1e9


MeasuredPeaks = Mapping[str, tuple[Peak, Series]]
"""By name: the peak, and its rounds."""


def samples_beside(peaks: MeasuredPeaks, own: Series, clock: Callable[[Series], Sequence[float]]) -> Samples:
    """Times of a case on one clock, with the anchors of the same rounds on the same clock."""
    (conv, conv_series), (copy, copy_series) = peaks[CONV], peaks[COPY]
    return Samples(
        tuple(clock(own)),
        tuple(second / (RUNS * conv.macs) for second in clock(conv_series)),
        tuple(second / (RUNS * copy.nbytes) for second in clock(copy_series)),
    )


def reached(peaks: MeasuredPeaks) -> tuple[float, float]:
    """GFLOP/s of the better of convolution and product, and GB/s of the copy; medians over the rounds."""
    rates = {name: [peak.rate(s) for s in series.device_s] for name, (peak, series) in peaks.items()}
    return float(np.median(np.maximum(rates[CONV], rates[MATMUL]))), float(np.median(rates[COPY]))


def cpu_share(peaks: MeasuredPeaks, threads: int) -> float:
    """How much of its threads' time the convolution really ran; 1 on a machine of one's own."""
    conv = peaks[CONV][1]
    return sum(conv.cpu_s) / sum(conv.wall_s) / threads


@contextmanager
def opened_peaks(
    device: Device, *, threads: int, on_gpu: int | None = None, sizes: PeakSizes | None = None
) -> Iterator[tuple[Peak, ...]]:
    """The peaks of a device that is attached to this thread.

    Args:
        device: of the engines that are measured.
        threads: of one run on the CPU.
        on_gpu: number of the CUDA device; None for the CPU.
        sizes: None for those of the device.

    Raises:
        DeviceError: ONNX Runtime, its CUDA provider or the onnx package is missing.
    """
    sizes = sizes or (ON_CPU if on_gpu is None else ON_GPU)
    with ExitStack() as stack:
        yield tuple(_opened(stack, device, sizes, threads, on_gpu))


def _opened(
    stack: ExitStack, device: Device, sizes: PeakSizes, threads: int, on_gpu: int | None
) -> Iterator[Peak]:
    for name, build in ((CONV, _conv), (MATMUL, _matmul), (COPY, _copy)):
        spec, model, macs, nbytes = build(sizes)
        engine = stack.enter_context(_engine(model, spec, threads, on_gpu))
        resident = Resident(device, engine, seeded_batch(spec, spec.max_batch))
        stack.callback(resident.close)
        yield Peak(name, partial(_fastest, resident.run), macs, nbytes)


def _fastest(run: Callable[[], float]) -> float:
    return min(_wall(run) for _ in range(RUNS))


def _wall(run: Callable[[], float]) -> float:
    began = perf_counter()
    run()
    return perf_counter() - began


def _engine(model: bytes, spec: NetworkSpec, threads: int, on_gpu: int | None) -> Engine:
    if on_gpu is None:
        return OnnxRuntimeEngine(model, spec, threads=threads)
    from dubstream.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

    return OnnxRuntimeCudaEngine(model, spec, index=on_gpu)


_Built = tuple[NetworkSpec, bytes, int, int]


def _conv(sizes: PeakSizes) -> _Built:
    channels, side = sizes.channels, sizes.side
    weight = _drawn((channels, channels, 3, 3))
    spec = _spec(CONV, (channels, side, side), (channels, side, side), sizes.batch)
    macs = sizes.batch * side * side * weight.size
    return spec, _model(spec, "Conv", weight, pads=[1, 1, 1, 1]), macs, 0


def _matmul(sizes: PeakSizes) -> _Built:
    size = sizes.matmul
    spec = _spec(MATMUL, (size, size), (size, size), 1)
    return spec, _model(spec, "MatMul", _drawn((size, size))), size**3, 0


def _copy(sizes: PeakSizes) -> _Built:
    spec = _spec(COPY, (sizes.copy,), (sizes.copy,), sizes.batch)
    return spec, _model(spec, "Neg"), 0, 2 * 4 * sizes.copy * sizes.batch


def _drawn(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _spec(name: str, item: tuple[int, ...], result: tuple[int, ...], batch: int) -> NetworkSpec:
    return NetworkSpec(
        name=f"peak-{name}", title="measured peak", max_batch=batch, gmacs=0.0, checkpoint="", licence="",
        inputs=(TensorSpec("x", "float32", (BATCH, *item), -1.0, 1.0, "numbers"),),
        outputs=(TensorSpec("y", "float32", (BATCH, *result), None, None, "numbers"),),
        tolerances={"y": Tolerance(0.0, 1.0, "not compared")},
    )  # fmt: skip


def _model(spec: NetworkSpec, operator: str, weight: Any = None, **attributes: Any) -> bytes:
    from dubstream.benchmarks.bench.networks.cost import import_onnx

    onnx = import_onnx()
    helper = onnx.helper
    x, y = (
        helper.make_tensor_value_info(tensor.name, onnx.TensorProto.FLOAT, list(tensor.shape))
        for tensor in (*spec.inputs, *spec.outputs)
    )
    weights = [] if weight is None else [onnx.numpy_helper.from_array(weight, "w")]
    node = helper.make_node(operator, ["x", *(tensor.name for tensor in weights)], ["y"], **attributes)
    graph = helper.make_graph([node], spec.name, [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content
