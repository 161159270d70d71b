"""Frames per second of the networks against PyTorch, all variants in turn in one run.

| variant | what |
|---|---|
| eager | the plain network in PyTorch, float32, TF32 off |
| compile | the deployable form under torch.compile, float16, channels last |
| a backend | the artifact (FP16 where there is one), inputs and outputs staying on the device |
| a backend/driver | the same engine driven item by item through host memory, without a streamer |

On the host `compile` only traces (backend "eager") in float32: compiling for a CPU says nothing about a GPU;
and only the smallest networks run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from dubstream.benchmarks.gpu_check.executors import (
    Arrays,
    BoundNetwork,
    artifact_of,
    backends,
    engine_of,
    seeded_inputs,
)
from dubstream.benchmarks.gpu_check.fidelity import planes, shown
from dubstream.benchmarks.gpu_check.journal import CheckFailedError, Journal, NotRunError
from dubstream.benchmarks.gpu_check.setting import Setting, opened, require_driver, require_package
from dubstream.benchmarks.rows import measure_in_turn
from dubstream.engines.artifact import Artifact
from dubstream.engines.engine import Engine
from dubstream.engines.specs import SPECS
from dubstream.engines.weights import SEED_SALT, SEEDED
from dubstream.export.fidelity import compare, cosine, peak_of
from dubstream.runtime.streaming.device import Device

REPEATS = 30
WARM_UPS = 3  # torch.compile's first call compiles, its second records
DRY_RUN = ("recon", "ganimation")
"""On the host: the networks that PyTorch runs there in no time; the first where none of them is asked for."""

Run = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One network at one batch.

    Attributes:
        name: of the network.
        inputs: for the artifact.
        full: the same for the float32 network.
    """

    name: str
    inputs: Arrays
    full: Arrays

    @property
    def batch(self) -> int:
        """Items."""
        return len(next(iter(self.inputs.values())))


def check(setting: Setting, journal: Journal) -> None:
    """Rows ``networks/NETWORK/VARIANT`` in frames per second."""
    torch = _torch(setting)
    repeats = 1 if setting.small else REPEATS
    for name in _names(setting):
        stage = f"networks/{name}"
        with journal.guard(stage), ExitStack() as stack:
            artifact = _artifact(setting, name)
            engines = _engines(setting, journal, stage, artifact, stack)
            pytorch = _PyTorch(setting, torch, name)
            for batch in _batches(setting, name):
                with journal.guard(stage, batch=batch):
                    case = _case(name, artifact, batch)
                    _measure(journal, stage, case, pytorch, engines, repeats)


def _names(setting: Setting) -> tuple[str, ...]:
    if not setting.host:
        return setting.networks
    return tuple(name for name in setting.networks if name in DRY_RUN) or DRY_RUN[:1]


def _batches(setting: Setting, name: str) -> list[int]:
    """The batches asked for, the network's largest in place of larger ones."""
    wanted = (1,) if setting.small else setting.batches
    return sorted({min(batch, SPECS[name].max_batch) for batch in wanted})


def _torch(setting: Setting) -> Any:
    require_package("torch", "what engines are compared with")
    import torch

    if not setting.host:
        require_driver()
        if not torch.cuda.is_available():
            raise NotRunError(f"torch {torch.__version__} here has no CUDA")
        # The baseline at its best, without rounding float32 to TF32.
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch


def _artifact(setting: Setting, name: str) -> Artifact | None:
    for precision in ("fp16", "fp32"):
        try:
            return artifact_of(setting, name, precision)
        except NotRunError:
            continue
    return None


def _case(name: str, artifact: Artifact | None, batch: int) -> Case:
    inputs = seeded_inputs(SPECS[name] if artifact is None else artifact.spec, batch)
    half = artifact is not None and artifact.precision != "fp32"
    return Case(name, inputs, planes(name, inputs) if half else inputs)


class _PyTorch:
    """The two PyTorch variants of a network with seeded weights."""

    def __init__(self, setting: Setting, torch: Any, name: str) -> None:
        from dubstream.export.networks import NETWORKS
        from dubstream.export.seeded import seeded_state

        self._torch, self._host = torch, setting.host
        self._device = "cpu" if setting.host else setting.device
        self._names = [tensor.name for tensor in SPECS[name].inputs]
        factory = NETWORKS[name]
        plain = factory.build().eval()
        plain.load_state_dict(seeded_state(plain, factory.seed_rule, salt=SEED_SALT))
        self._dtype = torch.float32 if setting.host else torch.float16
        deployed: Any = factory.deployable(plain).to(self._device, self._dtype)
        self._plain = plain.to(self._device)
        self._deployed = deployed.to(memory_format=torch.channels_last)

    def eager(self, case: Case) -> Run:
        """The plain network; the run returns its outputs."""
        inputs = [self._tensor(case.full[name]) for name in self._names]
        return self._synchronised(self._plain, inputs)

    def compiled(self, case: Case) -> Run:
        """The deployable network under torch.compile, for this batch alone."""
        torch = self._torch
        torch._dynamo.reset()
        mode: dict[str, Any] = {"backend": "eager"} if self._host else {"mode": "reduce-overhead"}
        inputs = [self._tensor(case.full[name]).to(self._dtype) for name in self._names]
        inputs = [x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]
        return self._synchronised(torch.compile(self._deployed, dynamic=False, **mode), inputs)

    def _tensor(self, array: Any) -> Any:
        return self._torch.from_numpy(array).to(self._device)

    def _synchronised(self, network: Any, inputs: list[Any]) -> Run:
        def run() -> Any:
            with self._torch.inference_mode():
                outputs = network(*inputs)
            if not self._host:
                self._torch.cuda.synchronize()
            return outputs

        return run


Engines = dict[str, tuple[Device, Engine, Artifact]]


def _engines(
    setting: Setting, journal: Journal, stage: str, artifact: Artifact | None, stack: ExitStack
) -> Engines:
    """The backends that open here; a row for each that does not."""
    found: Engines = {}
    for backend in backends(setting):
        with journal.guard(f"{stage}/{backend}"):
            if artifact is None:
                raise NotRunError("no artifact of this network: --artifacts DIR")
            device = stack.enter_context(opened(setting))
            engine = stack.enter_context(engine_of(backend, setting, artifact, device))
            found[backend] = device, engine, artifact
    return found


def _measure(
    journal: Journal, stage: str, case: Case, pytorch: _PyTorch, engines: Engines, repeats: int
) -> None:
    runs, facts = {"eager": pytorch.eager(case)}, {"eager": {"precision": "fp32"}}
    wanted = _named(case.name, runs["eager"]())
    with ExitStack() as stack:
        with journal.guard(f"{stage}/compile", batch=case.batch):
            run = pytorch.compiled(case)
            facts["compile"] = _compiled_facts(case, wanted, run)
            runs["compile"] = run
        for backend, (device, engine, artifact) in engines.items():
            with journal.guard(f"{stage}/{backend}", batch=case.batch):
                bound = BoundNetwork(device, engine, case.inputs)
                stack.callback(bound.close)
                facts[backend] = _engine_facts(artifact, case, wanted, bound.outputs())
                runs[backend] = bound.compute
                if case.batch == 1:
                    runs[f"{backend}/driver"], facts[f"{backend}/driver"] = bound.through_host, facts[backend]
        for _ in range(WARM_UPS if repeats > 1 else 0):
            for run in runs.values():
                run()
        times = measure_in_turn(runs, repeats)
    medians = {name: float(np.median(seconds)) for name, seconds in times.items()}
    for name, seconds in times.items():
        over = {
            f"over_{base}": medians[base] / medians[name] for base in ("eager", "compile") if base in runs
        }
        fps = [case.batch / second for second in seconds]
        journal.timed(f"{stage}/{name}", "fps", fps, batch=case.batch, **facts[name], **over)


def _named(name: str, outcome: Any) -> Arrays:
    outputs = outcome if isinstance(outcome, (tuple, list)) else (outcome,)
    tensors = SPECS[name].outputs
    return {
        tensor.name: output.float().cpu().numpy() for tensor, output in zip(tensors, outputs, strict=False)
    }


def _compiled_facts(case: Case, wanted: Arrays, run: Run) -> dict[str, Any]:
    """How far the baseline is from float32: a fact, as it is no work of ours; but it has to be numbers."""
    first = SPECS[case.name].outputs[0].name
    outcome = run()
    got = _named(case.name, outcome)[first]
    if not np.isfinite(got).all():
        raise CheckFailedError(f"torch.compile's '{first}' is not finite, so it is no baseline")
    likeness = cosine(wanted[first].ravel().astype(np.float64), got.ravel().astype(np.float64))
    return {"precision": "fp32" if wanted[first].dtype == _dtype(outcome) else "fp16", "cosine": likeness}


def _dtype(outcome: Any) -> Any:
    first = outcome[0] if isinstance(outcome, (tuple, list)) else outcome
    return np.dtype(str(first.dtype).removeprefix("torch."))


def _engine_facts(artifact: Artifact, case: Case, wanted: Arrays, got: Arrays) -> dict[str, Any]:
    """The precision, and that the outputs are those of PyTorch where both have the same weights."""
    facts: dict[str, Any] = {"precision": artifact.precision}
    if artifact.source != f"{SEEDED}:{SEED_SALT}":
        return facts | {"compared": False, "why_not": f"weights of the artifact: {artifact.source}"}
    half = artifact.precision != "fp32"
    reference = shown(artifact.spec.name, wanted, case.inputs) if half else wanted
    for tensor in artifact.spec.outputs:
        result = got[tensor.name].astype(np.float32)
        tolerance = artifact.spec.tolerances[tensor.name]
        _, problem = compare(
            "seeded", tensor.name, reference[tensor.name], result, tolerance, peak_of(tensor)
        )
        if problem:
            raise CheckFailedError(f"not timed, as it is not the network: {problem}")
    return facts | {"compared": True}
