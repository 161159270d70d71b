"""ONNX to plan: the only place that calls TensorRT's parser and builder.

It keeps to calls that also work on a machine without a GPU, where the test suite runs this very code on
the real parser and builder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import Any

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import ArtifactError, InternalError
from dubstream.engines.tensorrt import compat, timing
from dubstream.engines.tensorrt.environment import use_device
from dubstream.engines.tensorrt.interface import differences, signature
from dubstream.engines.tensorrt.options import BuildOptions
from dubstream.engines.tensorrt.watch import Progress, Watch, logger, progress_monitor, tail

_log = logging.getLogger("dubstream.tensorrt")


def build_plan(
    model: bytes | Path, spec: NetworkSpec, options: BuildOptions, *, progress: Progress | None = None
) -> bytes:
    """Build the plan of an ONNX model whose types are all in its graph.

    Args:
        model: the serialised model, or its path (needed where weights lie in files beside it).
        spec: what its inputs and outputs must be; its batch range becomes the optimisation profile.
        options: builder settings.
        progress: called with (phase, done, total) from another thread; an exception in it cancels the build.

    Returns:
        The serialised engine, for `dubstream.engines.store` to keep.

    Raises:
        DeviceError: no usable TensorRT or GPU.
        ArtifactError: the model does not parse or does not fit `spec`; carries the parser's own messages.
        InternalError: TensorRT could not build it; carries the tail of its log.
        KeyboardInterrupt: Ctrl-C, once the builder has stopped at its next step.
    """
    trt = compat.load()
    watch = Watch(progress)
    plan = _interruptible(lambda: _build(trt, model, spec, options, watch), watch)
    if watch.failure is not None:
        raise watch.failure
    if plan is None:
        raise InternalError(f"TensorRT {trt.__version__} built no plan of {spec.name}: {tail}")
    return plan


def _interruptible(work: Callable[[], bytes | None], watch: Watch) -> bytes | None:
    """Run `work` in a thread, because in C++ it would keep Python's signal handlers from running.

    The first Ctrl-C waits for the builder's next step, which may be a minute away. The thread is a daemon so
    that a second one ends the process at once; nothing is on disk yet that could be left half-done.
    """
    outcome: Future[bytes | None] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=run, name="tensorrt-build", daemon=True).start()
    try:
        return outcome.result()
    except BaseException:
        if not outcome.done():
            watch.cancel()
            _log.warning("stopping the build at its next step; interrupt again to leave at once")
            wait([outcome])
        raise


def _build(
    trt: Any, model: bytes | Path, spec: NetworkSpec, options: BuildOptions, watch: Watch
) -> bytes | None:
    use_device(options.device)  # this thread's own setting
    tail.clear()
    builder = trt.Builder(logger(trt))
    network = builder.create_network(compat.network_flags(trt))
    parser = parse(trt, network, model, spec.name)  # keeps the weights the network points into
    check_interface(network, spec)
    config = configured(trt, builder, spec, options)
    monitor = progress_monitor(trt, watch)
    config.progress_monitor = monitor
    started = time.perf_counter()
    memory = builder.build_serialized_network(network, config)
    if memory is None:
        return None
    plan = bytes(memory)
    if options.timing_cache is not None:
        timing.save(config, options.timing_cache)
    seconds = time.perf_counter() - started
    _log.info("built %s: %d layers, %.1f MB, %.1f s", spec.name, network.num_layers, len(plan) / 1e6, seconds)
    del parser
    return plan


def parse(trt: Any, network: Any, model: bytes | Path, name: str) -> Any:
    """Parse `model` into `network`; returns the parser, which must outlive the network's use.

    ArtifactError with everything the parser said when it found an error.
    """
    parser = trt.OnnxParser(network, logger(trt))
    if isinstance(model, Path):
        try:
            content = model.read_bytes()
        except OSError as error:
            raise ArtifactError(f"cannot read {model}: {error.strerror}") from error
        parsed = parser.parse(content, str(model))
    else:
        parsed = parser.parse(model)
    if not parsed or parser.num_errors:
        said = "; ".join(_parser_error(parser.get_error(i)) for i in range(parser.num_errors))
        raise ArtifactError(
            f"TensorRT {trt.__version__} cannot parse {name}: {said or tail}",
            hint="export it again with this version of dubstream and --force, or use --backend onnxruntime",
        )
    return parser


def _parser_error(error: Any) -> str:
    where = (
        f"node {error.node()} '{error.node_name()}' ({error.node_operator()}): " if error.node_name() else ""
    )
    return " ".join(f"{where}{error.desc()}".split())


def check_interface(network: Any, spec: NetworkSpec) -> None:
    """Raise one ArtifactError naming every input and output of `network` that is not as in `spec`."""
    sides = {
        "input": map(network.get_input, range(network.num_inputs)),
        "output": map(network.get_output, range(network.num_outputs)),
    }
    found = {
        side: {tensor.name: signature(tensor.dtype, tensor.shape) for tensor in tensors}
        for side, tensors in sides.items()
    }
    wrong = differences(found, spec)
    if wrong:
        raise ArtifactError(
            f"the parsed graph of {spec.name} does not fit its spec: {'; '.join(wrong)}",
            hint="export it again with this version of dubstream and --force",
        )


def configured(trt: Any, builder: Any, spec: NetworkSpec, options: BuildOptions) -> Any:
    """A builder configuration with `options`, the profile of `spec`, and the saved timings."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.builder_optimization_level = options.optimisation_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # names for traces and `dubstream inspect`
    if options.hardware_compatibility != "none":
        level = compat.compatibility_level(trt, options.hardware_compatibility)
        config.hardware_compatibility_level = level
    (config.set_flag if options.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if options.aux_streams is not None:
        config.max_aux_streams = options.aux_streams
    _add_profile(builder, config, spec, options)
    if options.timing_cache is not None:
        timing.attach(config, options.timing_cache)
    return config


def _add_profile(builder: Any, config: Any, spec: NetworkSpec, options: BuildOptions) -> None:
    batches, profile = options.profile(spec), builder.create_optimization_profile()
    for tensor in spec.inputs:
        shapes = [tensor.concrete(batch) for batch in (batches.minimum, batches.optimum, batches.maximum)]
        profile.set_shape(tensor.name, *shapes)
    index = config.add_optimization_profile(profile)
    if index < 0:
        raise InternalError(f"TensorRT refused the profile {batches} of {spec.name}: {tail}")
