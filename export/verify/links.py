"""The links of a chain: what they are called, what each is compared with, and how each is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dubstream.engines.artifact import Artifact, artifact_paths, open_artifact
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import UsageError
from dubstream.engines.half_specs import HALVES

FP32 = "fp32"
TORCH, ONNX = "torch", "onnx"
BACKENDS = ("onnxruntime", "onnxruntime-cuda", "tensorrt")
PRECISIONS = (FP32, *HALVES)

_NO_BF16 = "ONNX Runtime has no bfloat16 convolution"


class NotHereError(Exception):
    """A link that cannot be run here; the message is the reason."""


@dataclass(frozen=True)
class Link:
    """One executor of a network in one precision.

    Attributes:
        precision: ``fp32``, ``fp16`` or ``bf16``.
        executor: ``torch`` (the plain network, float32 only), ``onnx`` (the artifact's graph, every node as
            it stands; half precisions with every rounding emulated) or a backend (the engine that
            production runs).
    """

    precision: str
    executor: str

    @property
    def name(self) -> str:
        """E.g. ``"fp16/tensorrt"``."""
        return f"{self.precision}/{self.executor}"

    @property
    def predecessor(self) -> Link | None:
        """What it was made from; None for the root."""
        if self.executor == TORCH:
            return None
        if self.executor != ONNX:
            return Link(self.precision, ONNX)
        return ROOT if self.precision == FP32 else Link(FP32, ONNX)

    def ancestors(self) -> list[Link]:
        """Predecessor first, root last."""
        found = []
        link = self.predecessor
        while link is not None:
            found.append(link)
            link = link.predecessor
        return found

    def supported(self) -> None:
        """Raise `NotHereError` for a precision the executor runs nowhere."""
        if self.precision == "bf16" and self.executor.startswith("onnxruntime"):
            raise NotHereError(_NO_BF16)


ROOT = Link(FP32, TORCH)


def links_of(precisions: Sequence[str] = (), backends: Sequence[str] = ()) -> list[Link]:
    """The links below the root in the order of the chain.

    Args:
        precisions, backends: those wanted; none means all.

    Raises:
        UsageError: an unknown word.
    """
    wanted = _known("--precision", precisions, PRECISIONS)
    engines = _known("--backend", backends, BACKENDS)
    return [Link(precision, executor) for precision in wanted for executor in (ONNX, *engines)]


def link_named(text: str) -> Link:
    """The link called `text`; UsageError where there is none."""
    names = {link.name: link for link in (ROOT, *links_of())}
    if text not in names:
        raise UsageError(f"--require received '{text}', expected one of {', '.join(names)}")
    return names[text]


def find_artifact(folder: Path, spec: NetworkSpec, precision: str) -> Artifact:
    """The verified artifact.

    Raises:
        NotHereError: there are no such files.
        ArtifactError: there are, and they are not what they say.
    """
    paths = artifact_paths(folder, spec.name, precision)
    if not any(path.exists() for path in paths):
        raise NotHereError(
            f"no {paths[0].name} in the artifacts' folder: dubstream export {spec.name}"
            + ("" if precision == FP32 else f" --precision {precision}")
        )
    return open_artifact(folder, spec, precision)


def _known(option: str, wanted: Sequence[str], known: tuple[str, ...]) -> list[str]:
    for word in wanted:
        if word not in known:
            raise UsageError(f"{option} received '{word}', expected one of {', '.join(known)}")
    return [word for word in known if word in wanted or not wanted]
