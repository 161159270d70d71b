"""Networks on the CPU: the exported artifact against plain PyTorch and against the naive export.

`python -m dubstream.benchmarks.networks --artifacts DIR` prints one JSON row per network, batch and
variant. All variants of a case run in turn in one process (A B C A B C ...), so that a shared machine's
moods hit all of them; compare ratios, not milliseconds. Results are checked against each other before
anything is timed.

| variant | what |
|---|---|
| eager | the plain PyTorch network: torch.fft, spectral norm at every call, dead branches executed |
| naive | the plain network exported as it is (L-Net only, batch 1: its DFT operators are slow) |
| onnx | the artifact in ONNX Runtime, IO bound |
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dubstream.benchmarks.rows import Row, machine, measure_in_turn
from dubstream.engines.artifact import open_artifact
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.engines.specs import SPECS

Run = Callable[[], Any]


class _Stream:
    """Runs work at once: a stream for measuring one engine alone."""

    handle = None

    def launch(self, work: Callable[[], None], name: str) -> None:
        work()


def eager(spec: NetworkSpec, arrays: dict[str, np.ndarray[Any, Any]]) -> tuple[Run, Any]:
    """The plain network with seeded weights as a callable, and the module."""
    import torch

    from dubstream.engines.weights import SEED_SALT
    from dubstream.export.networks import NETWORKS
    from dubstream.export.seeded import seeded_state

    factory = NETWORKS[spec.name]
    module = factory.build()
    module.load_state_dict(seeded_state(module, factory.seed_rule, salt=SEED_SALT))
    module.eval()
    inputs = [torch.from_numpy(arrays[tensor.name]) for tensor in spec.inputs]

    def run() -> Any:
        with torch.inference_mode():
            return module(*inputs)

    return run, module


def onnx(spec: NetworkSpec, artifacts: Path, arrays: dict[str, Any], batch: int, threads: int) -> Run:
    """The artifact as a callable that returns its first output."""
    engine = OnnxRuntimeEngine(open_artifact(artifacts, spec).path, spec, threads=threads)
    outputs = {tensor.name: np.empty(tensor.concrete(batch), tensor.dtype) for tensor in spec.outputs}
    binding = engine.bind({**arrays, **outputs}, batch)

    def run() -> Any:
        binding.enqueue(_Stream())
        return outputs[spec.outputs[0].name]

    return run


def naive(spec: NetworkSpec, module: Any, arrays: dict[str, Any], threads: int, folder: Path) -> Run:
    """The plain network exported without rewrites and run by ONNX Runtime."""
    import onnxruntime

    from dubstream.export.onnx_export import export_onnx

    path = folder / f"{spec.name}.naive.onnx"
    if not path.exists():
        export_onnx(module, spec, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, arrays)[0]


def bench(
    spec: NetworkSpec, artifacts: Path, batch: int, threads: int, repeats: int, folder: Path
) -> list[Row]:
    """Rows of one network at one batch size."""
    draw = np.random.default_rng(batch)
    arrays = {
        tensor.name: draw.uniform(
            -1.0 if tensor.low is None else tensor.low, 1.0 if tensor.high is None else tensor.high,
            tensor.concrete(batch),
        ).astype(tensor.dtype)
        for tensor in spec.inputs
    }  # fmt: skip
    run_eager, module = eager(spec, arrays)
    runs: dict[str, Run] = {"eager": run_eager, "onnx": onnx(spec, artifacts, arrays, batch, threads)}
    if spec.name == "lnet" and batch == 1:
        runs["naive"] = naive(spec, module, arrays, threads, folder)
    _check(spec, runs)
    times = measure_in_turn(runs, repeats)
    return [
        Row.of(f"{spec.name}/{variant}", "ms", [1000 * s for s in seconds], batch=batch, threads=threads,
               gflops=2 * spec.gmacs * batch / float(np.median(seconds)))
        for variant, seconds in times.items()
    ]  # fmt: skip


def _check(spec: NetworkSpec, runs: dict[str, Run]) -> None:
    outcome = runs["eager"]()
    first = outcome[0] if isinstance(outcome, (tuple, list)) else outcome
    reference = first.numpy()
    tolerance = spec.tolerances[spec.outputs[0].name].max_abs
    for variant, run in runs.items():
        if variant != "eager":
            error = float(np.abs(run() - reference).max())
            if not error <= tolerance:
                raise SystemExit(
                    f"{spec.name}/{variant} is off by {error:.2e}, expected {tolerance:.0e}: not timed"
                )


def main() -> None:
    """Command line; see the module."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=list(SPECS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--naive", type=Path, help="folder that keeps the naive export for the next run")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    facts = machine()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.naive or Path(temporary)
        for name in chosen.networks:
            for batch in chosen.batches:
                rows = bench(SPECS[name], chosen.artifacts, batch, chosen.threads, chosen.repeats, folder)
                for row in rows:
                    print(json.dumps({**row.as_json(), **facts}), flush=True)


if __name__ == "__main__":
    main()
