"""Why a link failed: the first wrong tensor along its graph, and what a half precision would have to exempt.

The failure itself is already known and judged; a search that cannot be made here is logged and left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import torch

from dubstream.engines.weights import WeightsChoice
from dubstream.export.fidelity import Array, Case
from dubstream.export.half_graph import rounding_model
from dubstream.export.verify.chain import NetworkChain
from dubstream.export.verify.inputs import Probe
from dubstream.export.verify.links import FP32, ONNX, ROOT, Link, find_artifact
from dubstream.export.verify.result import Explanation, LinkResult

_log = logging.getLogger("dubstream.verify")
_CASES = 2  # failing probes that a proposal has to mend; each costs dozens of emulated runs


@dataclass
class Explainer:
    """Adds fault and proposal to failed results; each link is searched once."""

    _found: dict[tuple[str, str], tuple[Explanation | None, Explanation | None]] = field(default_factory=dict)

    def __call__(self, chain: NetworkChain, link: Link, result: LinkResult) -> LinkResult:
        """The failed result with what could be found out."""
        key = (result.network, link.name)
        if key not in self._found:
            self._found[key] = _searched(chain, link, result)
        fault, proposal = self._found[key]
        return replace(result, fault=fault, proposal=proposal)


def _searched(
    chain: NetworkChain, link: Link, result: LinkResult
) -> tuple[Explanation | None, Explanation | None]:
    assert result.worst is not None  # a failed link has rows
    probes = {probe.name: probe for probe in chain.domain_of(link).probes}
    failing = [probes[name] for name in dict.fromkeys(row.case for row in result.rows if row.problem)]
    try:
        fault = _fault(chain, link, probes[result.worst.case].first_item().inputs)
        return fault, _proposal(chain, link, failing)
    # Whatever goes wrong in a search must not hide the finding it was to explain.
    except Exception as error:
        _log.warning("no search for the cause in %s %s: %s", result.network, link.name, error)
        return None, None


def _fault(chain: NetworkChain, link: Link, inputs: Mapping[str, Array]) -> Explanation | None:
    from dubstream.export.verify.bisect import executor_fault, half_fault
    from dubstream.export.verify.bisect_graph import onnx_runtime
    from dubstream.export.verify.bisect_torch import torch_fault

    threads = chain.settings.threads
    spec = chain.spec_of(link)
    if link.executor not in (ONNX, "onnxruntime"):
        return None  # parts of a graph are run in ONNX Runtime on the CPU alone
    model = onnx.load(str(find_artifact(chain.settings.folder_of(spec), spec, link.precision).path))
    if link.executor == "onnxruntime":
        return executor_fault(
            model, inputs, onnx_runtime(threads, optimised=True), threads=threads, precision=link.precision
        )
    if link.precision != FP32:
        rounding = half_fault(model, inputs, threads=threads, precision=link.precision)
        return rounding or _weights_fault(chain, link, model, inputs)
    deployable = chain.recipe.factory.deployable(chain.plain)
    ordered = {tensor.name: inputs[tensor.name] for tensor in spec.inputs}
    return torch_fault(deployable, model, ordered, [tensor.name for tensor in spec.outputs], threads=threads)


def _weights_fault(
    chain: NetworkChain, link: Link, model: onnx.ModelProto, inputs: Mapping[str, Array]
) -> Explanation | None:
    """Where a half-precision graph leaves PyTorch's network, if its own rounding is innocent."""
    from dubstream.export.verify.bisect import NOISE, first_fault
    from dubstream.export.verify.bisect_graph import onnx_runtime
    from dubstream.export.verify.bisect_torch import TorchReference

    spec = chain.spec_of(link)
    deployable = chain.recipe.factory.deployable(chain.plain)
    whole = chain.recipe.half(link.precision).pictures(deployable, torch.float32)
    ordered = {tensor.name: inputs[tensor.name] for tensor in spec.inputs}
    return first_fault(
        rounding_model(model),
        TorchReference(whole, ordered, [tensor.name for tensor in spec.outputs]),
        {name: values.astype(np.float32) if values.dtype == np.float16 else values
         for name, values in ordered.items()},
        load=onnx_runtime(chain.settings.threads),
        noise=NOISE[link.precision],
    )  # fmt: skip


def _proposal(chain: NetworkChain, link: Link, failing: Sequence[Probe]) -> Explanation | None:
    """The modules a half precision would have to exempt so that the failing probes hold."""
    if link.precision == FP32 or link.executor != ONNX:
        return None
    from dubstream.export.verify.islands import propose_islands
    from dubstream.export.verify.islands_proof import exact_twin, module_classes, prove_by_export

    form, spec = chain.recipe.half(link.precision), chain.spec_of(link)
    domain = chain.domain_of(link)
    outputs = dict(zip((probe.name for probe in domain.probes), domain.outputs(ROOT.name), strict=True))
    cases = [probe.first_item() for probe in failing[:_CASES]]
    deployable = chain.recipe.factory.deployable(chain.plain)
    proposal = propose_islands(
        onnx.load(str(find_artifact(chain.settings.folder_of(spec), spec, link.precision).path)),
        spec,
        [Case(probe.kind, probe.inputs, ((0, 1),)) for probe in cases],
        [{name: values[:1] for name, values in outputs[probe.name].items()} for probe in failing[:_CASES]],
        limit=form.recipe.limit,
        threads=chain.settings.threads,
        classes=module_classes(deployable),
        exact=exact_twin(deployable, form),
    )
    if proposal is None:
        return None
    choice = chain.settings.choice or WeightsChoice(None)
    return prove_by_export(proposal, chain.recipe, link.precision, choice, threads=chain.settings.threads)
