"""The choice of what computes a dub: which library, which device, which precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from dubstream.engines.artifact import Artifact, remake_hint
from dubstream.engines.errors import UsageError

HOST = "onnxruntime"
ONNXRUNTIME_CUDA = "onnxruntime-cuda"
TENSORRT = "tensorrt"

PRECISIONS: dict[str, tuple[str, ...]] = {
    HOST: ("fp32", "fp16"),
    ONNXRUNTIME_CUDA: ("fp32", "fp16"),
    TENSORRT: ("fp16", "bf16", "fp32"),
}
"""What every backend runs; the first is its default. On the host fp16 tries the GPU's data path, slowly."""

_HOST_BATCH, _GPU_BATCH = 1, 4


@dataclass(frozen=True)
class Backend:
    """One way to compute; checked here, opened by `dubstream.runtime.platforms.platform.open_platform`.

    Attributes:
        name: ``onnxruntime`` (the CPU), ``onnxruntime-cuda`` or ``tensorrt``.
        device: number of the CUDA device, as CUDA counts; the host has only 0.
        wanted: precision of the artifacts; None for the backend's default.

    Raises:
        UsageError: an unknown name, a precision the backend does not run, no such device number.
    """

    name: str = HOST
    device: int = 0
    wanted: str | None = field(default=None, repr=False)

    NAMES: ClassVar[tuple[str, ...]] = tuple(PRECISIONS)

    def __post_init__(self) -> None:
        if self.name not in PRECISIONS:
            raise UsageError(f"--backend received '{self.name}', expected one of {', '.join(PRECISIONS)}")
        if self.wanted not in (None, *PRECISIONS[self.name]):
            raise UsageError(
                f"--precision received '{self.wanted}', expected one of "
                f"{', '.join(PRECISIONS[self.name])} with --backend {self.name}"
            )
        if self.device < 0:
            raise UsageError(f"--device received {self.device}, expected 0 or more")
        if self.device and not self.on_gpu:
            raise UsageError(
                f"--device {self.device} makes no sense with --backend {self.name}, which runs on the CPU",
                hint=f"--backend {TENSORRT}, or leave --device out",
            )

    @property
    def precision(self) -> str:
        """Precision of the artifacts it runs, e.g. ``fp16``."""
        return self.wanted or PRECISIONS[self.name][0]

    @property
    def batch(self) -> int:
        """Frames per network call unless told otherwise.

        A processor gains nothing from more. A frame of a batch of 4 took 0.95 of the time of one alone in
        E-Net and L-Net (n = 3 and 9, two cores, quiet), and on the same cores under load 1.4 to 1.7 times
        as long; a full-quality dub took 13.4 GB of memory with 4 and 5.0 with 1.
        """
        return _GPU_BATCH if self.on_gpu else _HOST_BATCH

    @property
    def on_gpu(self) -> bool:
        """Whether it needs a CUDA device."""
        return self.name != HOST

    def check_artifacts(self, artifacts: dict[str, Artifact]) -> None:
        """Raise `UsageError` when one of the artifacts is of another precision."""
        other = [
            f"{name} in {one.precision}" for name, one in artifacts.items() if one.precision != self.precision
        ]
        if other:
            raise UsageError(
                f"received {', '.join(other)}, expected {self.precision} for --backend {self.name}",
                hint=remake_hint(next(iter(artifacts.values())).path.parent, (), self.precision),
            )
