"""The PyTorch side of the bench: the network as published, unrewritten, as reference and as baseline.

Weights are those of the artifact: seeded ones are made again, checkpoints are read again. torch is imported
when the first network is made.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dubstream.benchmarks.bench.networks.sessions import cpu_session
from dubstream.benchmarks.bench.networks.variants import COMPILE, EAGER, NAIVE, Arrays, Variant
from dubstream.engines.artifact import Artifact
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import CheckpointError, DubError
from dubstream.engines.weights import SEED_SALT, SEEDED

if TYPE_CHECKING:
    from dubstream.export.recipes import Recipe

_COMPILERS = ("c++", "g++", "clang++")


class UnavailableError(Exception):
    """A baseline that this machine or these weights do not allow; its text says why."""


class PlainNetwork:
    """One network with the weights of an artifact, in PyTorch.

    Args:
        artifact: whose weights, inputs and outputs.
        checkpoints: folder of public checkpoints, for an artifact made of one.
        recipe: how the network is made; None for the project's own.

    Raises:
        UnavailableError: torch is missing, or weights that only the artifact still holds.
        CheckpointError: the checkpoint is unusable or not the one the artifact was made of.
    """

    def __init__(
        self,
        artifact: Artifact,
        checkpoints: Path | None = None,
        *,
        recipe: Recipe | None = None,
    ) -> None:
        torch = _torch()
        from dubstream.export.recipes import RECIPES

        self.spec, self.source = artifact.spec, artifact.source
        self._torch, self._device = torch, "cpu"
        self._recipe = recipe or RECIPES[artifact.spec.name]
        plain = self._recipe.factory.build()
        plain.load_state_dict(_state(self._recipe, plain, artifact, checkpoints), strict=True, assign=True)
        self.plain = plain
        half = None if artifact.precision == "fp32" else self._recipe.half(artifact.precision)
        self._pictures = None if half is None else half.pictures(plain, torch.float32)

    def reference(self, inputs: Mapping[str, Any]) -> Arrays:
        """Outputs in float32 on the CPU, pictures not rounded; the root of every comparison."""
        if self._pictures is not None:
            from dubstream.export.half_check import levels_runner

            return dict(levels_runner(self._pictures, self.spec)(inputs))
        from dubstream.export.onnx_export import torch_runner

        return dict(torch_runner(self.plain, self.spec)(inputs))

    def move(self, device: str) -> None:
        """Let the baselines run on ``cuda:N``; there is no reference afterwards.

        Raises:
            UnavailableError: torch has no CUDA here.
        """
        torch = self._torch
        if device != "cpu" and not torch.cuda.is_available():
            raise UnavailableError(f"torch {torch.__version__} here has no CUDA")
        # The baseline at its best, without rounding float32 to TF32.
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._module().to(device)
        self._device = device

    def eager(self, inputs: Arrays) -> Variant:
        """The network as it is, float32, TF32 off."""
        return Variant(EAGER, *self._runs(self._module(), inputs), {"precision": "fp32"})

    def compiled(self, inputs: Arrays) -> Variant:
        """The same under torch.compile for this batch alone.

        Raises:
            UnavailableError: no C++ compiler, or the compiler gave up; torch's first line says why.
        """
        if self._device == "cpu" and not any(map(shutil.which, _COMPILERS)):
            raise UnavailableError(
                f"torch.compile needs a C++ compiler, found none of {', '.join(_COMPILERS)}"
            )
        self._torch._dynamo.reset()
        compiled = self._torch.compile(self._module(), dynamic=False)
        run, outputs = self._runs(compiled, inputs)
        try:
            run()
        except Exception as error:  # whatever the compiler, its kernels or the C++ compiler raise
            first = str(error).strip().partition("\n")[0]
            raise UnavailableError(f"torch.compile failed: {type(error).__name__}: {first}") from error
        return Variant(COMPILE, run, outputs, {"precision": "fp32"})

    def naive(self, inputs: Arrays, folder: Path, threads: int) -> Variant:
        """The network exported without rewrites, in ONNX Runtime on the CPU; batch 1.

        Args:
            inputs: one item.
            folder: keeps the export for the next run.
            threads: of one run.

        Raises:
            UnavailableError: half precision, or the exporter cannot convert it.
        """
        if self._pictures is not None:
            raise UnavailableError("the naive export exists in fp32 only")
        path = folder / f"{self.spec.name}.naive.onnx"
        if not path.exists():
            self._export(path)
        session = cpu_session(path, threads)
        names = [tensor.name for tensor in self.spec.outputs]
        results: Arrays = {}

        def run() -> None:
            results.update(zip(names, session.run(names, inputs), strict=True))

        return Variant(NAIVE, run, lambda: dict(results), {"precision": "fp32", "backend": "onnxruntime"})

    def _export(self, path: Path) -> None:
        from dubstream.engines.atomic import atomic_file
        from dubstream.export.onnx_export import export_onnx

        try:
            with atomic_file(path) as part:
                export_onnx(self.plain, self.spec, part)
        except DubError as error:
            raise UnavailableError(f"the naive export failed: {error.message}") from error

    def _module(self) -> Any:
        return self.plain if self._pictures is None else self._pictures

    def _runs(self, module: Any, inputs: Arrays) -> tuple[Any, Any]:
        torch, spec = self._torch, self.spec
        tensors = [torch.from_numpy(inputs[tensor.name]).to(self._device) for tensor in spec.inputs]
        last: list[Any] = []

        def run() -> None:
            with torch.inference_mode():
                last[:] = [module(*tensors)]
            if self._device != "cpu":
                torch.cuda.synchronize()

        def outputs() -> Arrays:
            found = last[0] if isinstance(last[0], (tuple, list)) else (last[0],)
            return {t.name: got.cpu().numpy() for t, got in zip(spec.outputs, found, strict=True)}

        return run, outputs


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch's threads for a while; nothing happens where torch is missing."""
    if find_spec("torch") is None:
        yield
        return
    from dubstream.export.threads import torch_threads as limited

    with limited(threads):
        yield


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise UnavailableError(f"torch cannot be imported: {error}") from error
    return torch


def _state(recipe: Recipe, plain: Any, artifact: Artifact, checkpoints: Path | None) -> dict[str, Any]:
    from dubstream.export.checkpoint import load_checkpoint
    from dubstream.export.seeded import seeded_state

    if artifact.source == f"{SEEDED}:{SEED_SALT}":
        return seeded_state(plain, recipe.factory.seed_rule, salt=SEED_SALT)
    if not artifact.source.startswith("checkpoint:"):
        raise UnavailableError(f"PyTorch has no such weights: {artifact.source}")
    if checkpoints is None:
        raise UnavailableError("the artifact is of a checkpoint: give --checkpoints DIR")
    weights = load_checkpoint(
        checkpoints / artifact.spec.checkpoint, recipe.container, plain.state_dict(), allow_extra_keys=True
    )
    if weights.source != artifact.source:
        raise CheckpointError(
            f"{artifact.path} was made of {artifact.source}, expected {weights.source}",
            hint="dubstream export --checkpoints DIR makes it anew",
        )
    return weights.state


def close_to(spec: NetworkSpec, wanted: Arrays, got: Arrays) -> tuple[float, str | None]:
    """Largest share of a tolerance that an output uses, and the first problem in words.

    Args:
        spec: whose tolerances.
        wanted: the reference; pictures not rounded.
        got: outputs of the same batch in the dtypes of the spec, or a part of them.
    """
    from dubstream.export.fidelity import compare, peak_of

    worst, problems = 0.0, []
    for tensor in spec.outputs:
        if tensor.name not in got:
            continue
        want, found = wanted[tensor.name].astype("float32"), got[tensor.name].astype("float32")
        row, problem = compare(
            "seeded", tensor.name, want, found, spec.tolerances[tensor.name], peak_of(tensor)
        )
        worst = max(worst, row.tolerance_share)
        problems += [problem] if problem else []
    return worst, problems[0] if problems else None
