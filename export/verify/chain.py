"""The chain: PyTorch, ONNX in float32, ONNX in half precisions, engines; each link compared with its
predecessor and with the root.

A link is only worth what its comparison is, so nothing is taken from sidecars: every figure is measured now,
on the very files. Float32 links are compared in the planes of their spec. Half-precision artifacts take
pictures, so the root and the float32 graph are put inside the same conversions (`pictures.in_pictures`), and
compared with what a half-precision output is before it is rounded to pixels.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import torch

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import ArtifactError, DeviceError
from dubstream.engines.sidecar import FidelityRow
from dubstream.engines.weights import WeightsChoice
from dubstream.export.fidelity import Array
from dubstream.export.half_check import levels_runner
from dubstream.export.half_graph import rounding_model
from dubstream.export.onnx_export import torch_runner
from dubstream.export.recipes import Recipe
from dubstream.export.verify.agreement import ROUNDING_FACTOR, Judge
from dubstream.export.verify.domain import Domain
from dubstream.export.verify.inputs import Probe, clip_inputs, probes
from dubstream.export.verify.links import FP32, ONNX, ROOT, Link, NotHereError, find_artifact
from dubstream.export.verify.noise import noise_floors, rounding_floors
from dubstream.export.verify.opening import open_backend
from dubstream.export.verify.pictures import in_pictures, planes_of
from dubstream.export.verify.result import LinkResult, Verdict
from dubstream.export.verify.runners import Load, graph_run

_log = logging.getLogger("dubstream.verify")

Explain = Callable[["NetworkChain", Link, LinkResult], LinkResult]
"""Adds to a failed result where it goes wrong."""


@dataclass(frozen=True)
class Settings:
    """What a chain is run on.

    Attributes:
        folder: the artifacts; None for the cache's, which `choice` then names.
        links: below the root, in order.
        quick: seeded and real inputs alone, one item each.
        threads: CPU threads of every executor.
        frames: uint8 BGR frames of a clip to try as well; none: no clip.
        device: CUDA device of GPU backends.
        choice: the weights; None to believe the sidecars.
    """

    folder: Path | None
    links: Sequence[Link]
    quick: bool = False
    threads: int = 1
    frames: Sequence[Array] = ()
    device: int = 0
    choice: WeightsChoice | None = None

    def folder_of(self, spec: NetworkSpec) -> Path:
        """Where the artifacts of a network are; errors as in `WeightsChoice.source_of`."""
        if self.folder is not None:
            return self.folder
        assert self.choice is not None  # the command asks for one of both
        return self.choice.folder_of(spec)


@dataclass
class NetworkChain:
    """One network's chain, run link by link.

    Attributes:
        recipe: the network.
        plain: the PyTorch network with its weights.
        source: where its weights come from, as sidecars say it.
        settings: see `Settings`.
        planes: runs in the float32 spec; empty where no float32 link is asked for.
        pictures: runs in the half-precision spec; None until a half-precision link is asked for.
    """

    recipe: Recipe
    plain: torch.nn.Module
    source: str
    settings: Settings
    planes: Domain = field(init=False)
    pictures: Domain | None = field(init=False, default=None)
    floors: dict[tuple[str, str], float] = field(init=False, default_factory=dict)
    _rounding_of: dict[str, dict[tuple[str, str], FidelityRow]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.planes = Domain(self.recipe.spec, self._planes_probes())

    def verify(self, explain: Explain | None = None) -> list[LinkResult]:
        """Run all links; results in the order of the chain, failed ones explained where that is wanted.

        Raises:
            ArtifactError: a file that is damaged, or made from other weights than the root's.
        """
        if any(link.precision == FP32 for link in self.settings.links):
            self._run_root()
        found: list[LinkResult] = []
        for link in self.settings.links:
            found += [
                explain(self, link, result) if explain and result.verdict == "failed" else result
                for result in self._verified(link)
            ]
        return found

    def spec_of(self, link: Link) -> NetworkSpec:
        """The contract of the link's artifact, with its tolerances."""
        return self.recipe.spec if link.precision == FP32 else self.recipe.half(link.precision).spec

    def domain_of(self, link: Link) -> Domain:
        """Where the link is compared."""
        return self.planes if link.precision == FP32 else self._pictures()

    def _verified(self, link: Link) -> list[LinkResult]:
        name, domain = self.recipe.spec.name, self.planes
        try:
            load = self._load(link)
            domain = self.domain_of(link)
            seconds = domain.run(link.name, load)
        except (NotHereError, DeviceError) as reason:
            before = link.predecessor
            assert before is not None  # the root always runs
            return [LinkResult(name, link.name, before.name, "not run", str(reason))]
        results = []
        for against in self._compared_with(link, domain):
            rounded = link.precision != FP32 and against.precision == link.precision
            spec = _for_two_roundings(self.spec_of(link)) if rounded else self.spec_of(link)
            if domain is self.planes:
                judge = Judge(spec, self.floors)
            else:
                factor = (2 if rounded else 1) * ROUNDING_FACTOR
                judge = Judge(spec, rounding=self.rounding(link.precision), factor=factor)
            rows = domain.compare(link.name, against.name, judge)
            verdict: Verdict = "passed" if all(rows) else "failed"
            results.append(
                LinkResult(name, link.name, against.name, verdict, _reasons(judge.spec), rows, seconds)
            )
        return results

    def _compared_with(self, link: Link, domain: Domain) -> list[Link]:
        """The nearest ancestor that ran, and the root."""
        ran = [ancestor for ancestor in link.ancestors() if ancestor.name in domain.results]
        return list(dict.fromkeys([ran[0], ROOT]))

    def _load(self, link: Link) -> Load:
        """What opens the link; raises `NotHereError` where it can be known before."""
        link.supported()
        if link.precision != FP32 and link.precision not in self.recipe.halves:
            raise NotHereError(f"{self.recipe.spec.name} has no recipe for {link.precision}")
        spec, threads = self.spec_of(link), self.settings.threads
        artifact = find_artifact(self.settings.folder_of(spec), spec, link.precision)
        if artifact.source != self.source:
            raise ArtifactError(
                f"{artifact.path}: made from {artifact.source}, expected the weights of {self.source}",
                hint="name the weights it was made from, or export it again",
            )
        if link.executor != ONNX:
            return lambda: open_backend(link.executor, artifact, threads, self.settings.device)
        if link.precision == FP32:
            return lambda: graph_run(artifact.path, spec, threads)
        return lambda: graph_run(rounding_model(onnx.load(str(artifact.path))), spec, threads)

    def _run_root(self) -> None:
        run = torch_runner(self.plain, self.recipe.spec)
        self.planes.run(ROOT.name, lambda: run)
        begun = time.perf_counter()
        self.floors = noise_floors(run, self.planes.probes, self.planes.outputs(ROOT.name))
        _log.info("%s: noise floors in %.1f s", self.recipe.spec.name, time.perf_counter() - begun)

    def rounding(self, precision: str) -> dict[tuple[str, str], FidelityRow]:
        """Floors of the pictures that are clamped though the network does not bound them.

        Where inputs are absurd its values reach hundreds of times the range of a pixel, rounding is in
        proportion, and the clamp leaves the few pixels between black and white with it.
        """
        if precision not in self._rounding_of:
            form, domain = self.recipe.half(precision), self._pictures()
            unbounded = {tensor.name for tensor in self.recipe.spec.outputs if tensor.low is None}
            self._rounding_of[precision] = rounding_floors(
                levels_runner(form.pictures(self.plain, torch.float32), form.spec),
                form.spec,
                [one.name for one in form.spec.outputs if one.dtype == "uint8" and one.name in unbounded],
                domain.probes,
                domain.outputs(ROOT.name),
                getattr(torch, form.recipe.dtype),
            )
        return self._rounding_of[precision]

    def _pictures(self) -> Domain:
        """The domain of the half precisions, with the root and the float32 graph in it."""
        if self.pictures is None:
            form = next(iter(self.recipe.halves.values()))
            self.pictures = Domain(form.spec, self._pictures_probes())
            root = levels_runner(form.pictures(self.plain, torch.float32), form.spec)
            self.pictures.run(ROOT.name, lambda: root)
            with suppress(NotHereError):  # then half precisions are compared with the root alone
                wide = Link(FP32, ONNX)
                load = self._load(wide)
                self.pictures.run(wide.name, lambda: in_pictures(load(), self.recipe.spec, form))
        return self.pictures

    def _pictures_probes(self) -> list[Probe]:
        form = next(iter(self.recipe.halves.values()))
        real = form.real()
        found = probes(form.spec, real, quick=self.settings.quick)
        # Every emulated rounding costs ten times the network: one seeded item is enough.
        uniform, *others = found
        found = [uniform.first_item(), *others]
        if self.settings.frames:
            frames = self.settings.frames
            found.append(Probe(f"clip/{len(frames)}", clip_inputs(form.spec, real, frames)))
        return found

    def _planes_probes(self) -> list[Probe]:
        spec, halves = self.recipe.spec, self.recipe.halves
        if not halves:
            return probes(spec, None, quick=self.settings.quick)
        form = next(iter(halves.values()))
        found = probes(spec, planes_of(form.real(), spec, form), quick=self.settings.quick)
        if self.settings.frames:
            pixels = clip_inputs(form.spec, form.real(), self.settings.frames)
            found.append(Probe(f"clip/{len(self.settings.frames)}", planes_of(pixels, spec, form)))
        return found


def _reasons(spec: NetworkSpec) -> str:
    return "; ".join(dict.fromkeys(tolerance.reason for tolerance in spec.tolerances.values()))


def _for_two_roundings(spec: NetworkSpec) -> NetworkSpec:
    """The spec for comparing two links that round: each may be its whole tolerance away from the root.

    Twice the amplitude is 6 dB, and four times one minus the cosine.
    """
    return replace(
        spec,
        tolerances={
            name: replace(
                one,
                max_abs=2 * one.max_abs,
                cosine=1 - 4 * (1 - one.cosine),
                relative_l2=None if one.relative_l2 is None else 2 * one.relative_l2,
                psnr=None if one.psnr is None else one.psnr - 20 * math.log10(2),
                reason=f"both links round; each is held to this from PyTorch: {one.reason}",
            )
            for name, one in spec.tolerances.items()
        },
    )
