"""What a verification found: rows of figures, a verdict per link, a report. Plain data; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

Verdict = Literal["passed", "failed", "not run"]
"""``not run``: the link's backend or file is missing here; it says nothing about the link."""

Rule = Literal["tolerance", "noise floor", "rounding floor", "golden"]
"""What a row is judged by.

``tolerance``: the output's tolerance in the spec. ``noise floor``: finite, and no further off than a stated
multiple of what rounding alone does to the PyTorch network on these inputs (or the tolerance, if larger).
``rounding floor``: all measures of the tolerance, none below a stated multiple of what it is for the PyTorch
network with its products rounded to the half precision.
``golden``: the tolerance's largest difference, against values of an earlier run.
"""


GOLDEN = "golden"
"""What a link compared with a golden file is compared against."""


class Explanation(Protocol):
    """What a search for the cause found; see `dubstream.export.verify.bisect`."""

    def as_json(self) -> dict[str, Any]:
        """A plain form."""


@dataclass(frozen=True)
class CaseRow:
    """How far one output was from the same output of another link, for one set of inputs.

    Attributes:
        case: the inputs and their batch, e.g. ``"real/2"``.
        output: name of the output.
        max_abs, mean_abs: absolute differences, in the output's unit, over the values finite on both sides.
        relative_l2: norm of the difference over the norm of the other link's output.
        cosine: cosine similarity of the flattened outputs.
        psnr: decibels; None where nothing differs.
        ssim: structural similarity of a picture, 1 for equal ones; None where the output is none.
        allowed: largest `max_abs` the rule allows.
        share: how much of the tolerance is used by the measure that uses most: `max_abs` over `allowed`, and
            under all rules but ``noise floor`` also cosine, relative L2 and PSNR, where they are
            asked for, as ratios of errors. At most 1 where the row holds.
        nan, inf: how many values are NaN or infinite: (in the other link, in this one).
        rule: what it is judged by, see `Rule`.
        problem: why it does not hold; empty where it does.
    """

    case: str
    output: str
    max_abs: float
    mean_abs: float
    relative_l2: float
    cosine: float
    psnr: float | None
    ssim: float | None
    allowed: float
    share: float
    nan: tuple[int, int]
    inf: tuple[int, int]
    rule: Rule
    problem: str = ""

    def __bool__(self) -> bool:
        """Whether it holds; Polygraphy's comparator asks this of what a comparison returns."""
        return not self.problem


@dataclass(frozen=True)
class LinkResult:
    """One link compared with one other.

    Attributes:
        network: name of the network.
        link: ``precision/executor``, e.g. ``"fp16/tensorrt"``; see `dubstream.export.verify.links`.
        against: the link it was compared with, or ``"golden"``.
        verdict: see `Verdict`.
        reason: where the tolerances come from; for ``not run``, what is missing.
        rows: one per case and output; none where it was not run.
        seconds: computing time of the link over all cases, without loading.
        fault: where along the graph it first goes wrong; only for a failed link, where it could be found.
        proposal: which modules would have to stay float32; only for a failed half-precision link.
    """

    network: str
    link: str
    against: str
    verdict: Verdict
    reason: str = ""
    rows: tuple[CaseRow, ...] = ()
    seconds: float = 0.0
    fault: Explanation | None = None
    proposal: Explanation | None = None

    @property
    def worst(self) -> CaseRow | None:
        """The row to show: not finite before not holding before the largest share of the tolerance."""

        def badness(row: CaseRow) -> tuple[bool, bool, float]:
            return bool(row.problem), any((*row.nan, *row.inf)), row.share

        return max(self.rows, key=badness, default=None)

    def as_json(self) -> dict[str, Any]:
        """A plain form; infinite numbers become null, because JSON has none."""
        plain = {name: getattr(self, name) for name in ("network", "link", "against", "verdict", "reason")}
        return plain | {
            "seconds": round(self.seconds, 3),
            "rows": [_plain_row(row) for row in self.rows],
            "fault": None if self.fault is None else self.fault.as_json(),
            "proposal": None if self.proposal is None else self.proposal.as_json(),
        }


@dataclass(frozen=True)
class ChainReport:
    """Everything one run of `dubstream verify` found.

    Attributes:
        links: results in the order of the chain, network by network.
        facts: versions, machine, weights and options that made it.
        required: links that had to run.
        seconds: wall time.
    """

    links: tuple[LinkResult, ...]
    facts: Mapping[str, str]
    required: tuple[str, ...] = ()
    seconds: float = 0.0
    format: int = field(default=1)

    @property
    def failures(self) -> list[LinkResult]:
        """Links that failed, and required ones that were not run."""
        return list(self._failures())

    @property
    def holds(self) -> bool:
        """Whether every link that was run, and every required one, holds."""
        return not self.failures

    def _failures(self) -> Iterator[LinkResult]:
        for link in self.links:
            wanted = link.link in self.required and link.against != GOLDEN
            missing = wanted and link.verdict == "not run"
            if link.verdict == "failed" or missing:
                yield link

    def as_json(self) -> dict[str, Any]:
        """A plain, JSON-serialisable form."""
        return {
            "format": self.format,
            "holds": self.holds,
            "required": list(self.required),
            "seconds": round(self.seconds, 3),
            "facts": dict(self.facts),
            "links": [link.as_json() for link in self.links],
        }


def _plain_row(row: CaseRow) -> dict[str, Any]:
    plain = asdict(row) | {"nan": list(row.nan), "inf": list(row.inf)}
    return {key: None if value in (float("inf"), float("-inf")) else value for key, value in plain.items()}
