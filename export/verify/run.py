"""A whole verification: every network's chain, one after another, and its golden."""

from __future__ import annotations

import gc
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dubstream.engines.errors import ArtifactError, VerificationError
from dubstream.export.recipes import RECIPES, Recipe
from dubstream.export.threads import torch_threads
from dubstream.export.verify.chain import Explain, NetworkChain, Settings
from dubstream.export.verify.domain import Domain
from dubstream.export.verify.explain import Explainer
from dubstream.export.verify.goldens import Golden, Recorded, golden_probes, save_golden
from dubstream.export.verify.links import FP32, PRECISIONS, ROOT, Link
from dubstream.export.verify.result import GOLDEN, CaseRow, ChainReport, LinkResult, Verdict
from dubstream.export.verify.root import load_root

_log = logging.getLogger("dubstream.verify")
_TOOLS = (
    *("dubstream", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt", "polygraphy", "numpy"),
    "scikit-image",
)
NO_ROOT = "no weights were named, and no artifact here says which they are"

OnChain = Callable[[NetworkChain, Sequence[LinkResult]], None]
"""Called with every finished chain, whose runs are still in memory."""


@dataclass
class Verification:
    """What to verify, and what came out.

    Attributes:
        networks: names.
        settings: see `Settings`.
        golden: what the outputs are to equal as well.
        required: names of links that have to run.
        recipes: how networks are made.
        on_chain: see `OnChain`.
        explain: looks for the cause of a failure; None to leave that.
    """

    networks: Sequence[str]
    settings: Settings
    golden: Golden | None = None
    required: Sequence[str] = ()
    recipes: Mapping[str, Recipe] = field(default_factory=lambda: RECIPES)
    on_chain: OnChain = lambda chain, results: None
    explain: Explain | None = field(default_factory=Explainer)
    recorded: list[Recorded] = field(init=False, default_factory=list)

    def run(self) -> ChainReport:
        """Verify all networks, one in memory at a time.

        Raises:
            ArtifactError: there is nothing at all to verify, or a file is damaged or of other weights.
            UsageError, CheckpointError, StorageError: see `load_root`.
        """
        begun = time.monotonic()
        results: list[LinkResult] = []
        with torch_threads(self.settings.threads):
            for name in self.networks:
                results += self._network(self.recipes[name])
                gc.collect()  # modules sit in reference cycles, half a gigabyte of them for L-Net
        if all(result.verdict == "not run" for result in results):
            raise ArtifactError(
                f"nothing could be verified with {self.settings.folder or 'the cache'}: {results[0].reason}",
                hint="make artifacts with dubstream export, and name their folder with --artifacts DIR",
            )
        return ChainReport(tuple(results), self.facts(), tuple(self.required), time.monotonic() - begun)

    def facts(self) -> dict[str, str]:
        """Versions, machine and weights."""
        found = {"python": platform.python_version()}
        for tool in _TOOLS:
            with suppress(PackageNotFoundError):
                found[tool] = version(tool)
        weights = sorted({part.source for part in self.recorded})
        return found | {
            "machine": f"{platform.system()} {platform.machine()}",
            "threads": str(self.settings.threads),
            "weights": ", ".join(weights),
        }

    def save(self, path: Path) -> None:
        """Write the roots' outputs as a golden file; see `save_golden`."""
        save_golden(path, self.recorded, self.facts())

    def _network(self, recipe: Recipe) -> list[LinkResult]:
        name, settings = recipe.spec.name, self.settings
        root = load_root(recipe, settings.folder_of(recipe.spec), PRECISIONS, settings.choice)
        if root is None:
            return [_not_run(name, link) for link in settings.links]
        chain = NetworkChain(recipe, root.network, root.source, settings)
        results = chain.verify(self.explain)
        for label, domain in _domains(chain).items():
            self._record(chain, label, domain)
            if self.golden is not None:
                results += self._against_golden(chain, label, domain, self.golden)
        self.on_chain(chain, results)
        return results

    def _record(self, chain: NetworkChain, label: str, domain: Domain) -> None:
        outputs = domain.outputs(ROOT.name)
        kept = golden_probes(domain.probes)
        firsts = [{key: values[:1] for key, values in outputs[index].items()} for index, _ in kept]
        probes = [probe for _, probe in kept]
        self.recorded.append(Recorded(chain.recipe.spec.name, label, chain.source, probes, firsts))

    def _against_golden(
        self, chain: NetworkChain, label: str, domain: Domain, golden: Golden
    ) -> list[LinkResult]:
        name, found = chain.recipe.spec.name, []
        for link in (ROOT, *chain.settings.links):
            if _label(link) != label or link.name not in domain.results:
                continue
            if not golden.holds(name, label):
                missing = f"the golden has no {name} {label}"
                found.append(LinkResult(name, link.name, GOLDEN, "not run", missing))
                continue
            rows = _golden_rows(chain, link, label, domain, golden)
            verdict: Verdict = "passed" if all(rows) else "failed"
            found.append(LinkResult(name, link.name, GOLDEN, verdict, "values of an earlier run", rows))
        return found


def check(report: ChainReport) -> None:
    """Raise `VerificationError`, which names the first finding, unless the report holds."""
    if report.holds:
        return
    first, *others = report.failures
    more = f"; {len(others)} more findings" if others else ""
    if first.verdict == "not run":
        raise VerificationError(
            f"{first.network} {first.link} is required and was not run: {first.reason}{more}"
        )
    row = first.worst
    assert row is not None  # a failed link has rows
    where = f"; {first.fault}" if first.fault is not None else ""
    raise VerificationError(
        f"{first.network} {first.link} against {first.against}: {row.problem}{where}{more}"
    )


def _golden_rows(
    chain: NetworkChain, link: Link, label: str, domain: Domain, golden: Golden
) -> tuple[CaseRow, ...]:
    outputs, spec = domain.outputs(link.name), chain.spec_of(link)
    rows: tuple[CaseRow, ...] = ()
    for index, probe in golden_probes(domain.probes):
        first = {key: values[:1] for key, values in outputs[index].items()}
        rows += golden.compare(spec, label, chain.source, probe, first)
    return rows


def _domains(chain: NetworkChain) -> dict[str, Domain]:
    """Those in which the root ran."""
    found = {"planes": chain.planes, "pictures": chain.pictures}
    return {
        label: domain for label, domain in found.items() if domain is not None and ROOT.name in domain.results
    }


def _not_run(network: str, link: Link) -> LinkResult:
    before = link.predecessor
    assert before is not None  # settings hold links below the root
    return LinkResult(network, link.name, before.name, "not run", NO_ROOT)


def _label(link: Link) -> str:
    return "planes" if link.precision == FP32 else "pictures"
