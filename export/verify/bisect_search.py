"""The first tensor along a graph that is wrong: bisection by halves, fed with right values at every cut.

Errors grow along a deep graph, so the first tensor whose error is large says little about who made it so.
Here a stretch of the graph is judged by itself: it gets the reference's tensors where it begins, and its
results are compared with the reference's where it ends. A wrong stretch is halved. If its first half is
wrong, the fault is there; otherwise the second half, fed with right values again, holds it. Only the
tensors that cross a cut are ever held, and stretches shrink, so that all of it costs a few runs.

What a stretch may be wrong by: at least `Noise.least`, and `Noise.margin` times as much as it makes of
inputs with rounding noise on them, because it cannot be blamed for what its inputs explain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import onnx

from dubstream.export.fidelity import Array
from dubstream.export.verify.bisect_graph import Feeds, Graph, Load, Part

NODE = "node"
GROWTH = "growth"

_SEED = 0
_AT_ONCE = 64  # tensors of the reference held while nodes are judged one by one


@dataclass(frozen=True)
class Noise:
    """Errors that are nobody's fault.

    Attributes:
        unit: half the distance of neighbouring numbers, relative.
        least: relative L2 that is always allowed.
        margin: how many times the effect of one `unit` on the inputs is allowed.
    """

    unit: float
    least: float
    margin: float


@dataclass(frozen=True)
class Fault:
    """The first tensor that is wrong, and who makes it.

    Attributes:
        tensor, node, op: its name in the graph, and name and operator of the node it comes from.
        module: dotted path of the innermost PyTorch module that holds what is wrong; "" outside all.
        error: its relative L2 error when every tensor before the stretch at fault is right.
        allowed: what would have been noise.
        depth: position of the node in the order of computation, from 0.
        nodes: how many there are.
        kind: ``"node"``: right inputs, wrong result. ``"growth"``: no node is wrong by itself; small errors
            have grown, and here they first leave what is allowed.
        end_error: relative L2 error of the worst output of the graph.
        cured_error: the same after this one tensor was set right. Still large: there are more faults.
    """

    tensor: str
    node: str
    op: str
    module: str
    error: float
    allowed: float
    depth: int
    nodes: int
    kind: str
    end_error: float
    cured_error: float

    def as_json(self) -> dict[str, Any]:
        """A plain form for JSON; an error that is not finite becomes None."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    def __str__(self) -> str:
        what = "is wrong" if self.kind == NODE else "is where errors have grown too large"
        return (
            f"tensor '{self.tensor}' of node {self.node} ({self.op}) in module '{self.module}' {what}: "
            f"relative L2 {self.error:.1e}, allowed {self.allowed:.1e}"
        )


class Reference(Protocol):
    """Whoever knows the right values of tensors."""

    def knows(self, graph: Graph) -> set[str]:
        """Tensors of the judged graph, made by its nodes, whose right value can be had."""

    def values(self, names: Iterable[str]) -> dict[str, Array]:
        """Their values."""

    def keep(self, names: Iterable[str]) -> None:
        """Forget all others, to save memory."""


def relative_error(want: Array, got: Array) -> float:
    """Relative L2 error; absolute where `want` is zero, infinite where shapes or non-finite places differ."""
    if want.shape != got.shape:
        return math.inf
    a, b = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return math.inf
    a, b = a[finite], b[finite]
    return float(np.linalg.norm(b - a)) / (float(np.linalg.norm(a)) or 1.0)


@dataclass(frozen=True)
class _Verdict:
    """About one stretch: its worst tensor, with error and what is allowed; the largest error of any."""

    tensor: str
    error: float
    allowed: float
    largest: float

    @property
    def wrong(self) -> bool:
        return self.error > self.allowed


@dataclass(frozen=True)
class _Found:
    """Cuts around a fault, what is wrong at the second one, and the kind of fault."""

    low: int
    high: int
    verdict: _Verdict
    kind: str


class Bisection:
    """One search; see `dubstream.export.verify.bisect.first_fault`.

    Cuts are counted: cut k lies behind the k-th node that makes a known tensor, cut 0 before all.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        reference: Reference,
        inputs: Feeds,
        load: Load,
        noise: Noise,
        thorough: bool,
    ) -> None:
        self.graph = Graph(model)
        self.reference, self.inputs, self.load = reference, dict(inputs), load
        self.noise, self.thorough = noise, thorough
        alive = (name for name, at in self.graph.maker.items() if self.graph.lives_after(name, at + 1))
        self.known = reference.knows(self.graph) & set(alive)
        self.cuts = [0, *sorted({self.graph.maker[name] + 1 for name in self.known})]

    def fault(self) -> Fault | None:
        outputs = [name for name in self.graph.outputs if name in self.known]
        if not outputs:
            return None
        whole = self._judge(0, len(self.cuts) - 1)
        if not whole.largest > self.noise.least:
            return None
        found = self._first(whole)
        verdict, kind = found.verdict, found.kind
        culprit = self._position(found.high) - 1
        node = self.graph.nodes[culprit]
        right = self.reference.values(name for name in node.output if name in self.known)
        return Fault(
            tensor=verdict.tensor,
            node=node.name or verdict.tensor,
            op=node.op_type,
            module=self._module(verdict.tensor, found.low, kind),
            error=verdict.error,
            allowed=verdict.allowed,
            depth=culprit,
            nodes=len(self.graph.nodes),
            kind=kind,
            end_error=whole.largest,
            cured_error=self._end_error(outputs, right),
        )

    def _first(self, whole: _Verdict) -> _Found:
        """The first node that is wrong by itself; without one, where errors have grown first."""
        end = len(self.cuts) - 1
        first = found = self._search(0, end, whole)
        while found.kind == GROWTH and found.high < end:
            start = found.high
            rest = self._judge(start, end)
            if not rest.wrong:
                return first
            found = self._search(start, end, rest)
        return found if found.kind == NODE else first

    def _search(self, low: int, high: int, verdict: _Verdict) -> _Found:
        """The first fault between two cuts, about which the verdict is."""
        while high - low > 1:
            middle = (low + high) // 2
            first = self._judge(low, middle)
            second = first if first.wrong else self._judge(middle, high)
            if first.wrong:
                high, verdict = middle, first
            elif second.wrong:
                low, verdict = middle, second
            else:
                found = self._scan(low, high) if self.thorough else None
                return found or self._grown(low, high, blind=not verdict.wrong)
            self._keep(low, high)
        return _Found(low, high, verdict, NODE) if verdict.wrong else self._grown(low, high, blind=True)

    def _keep(self, *cuts: int) -> None:
        """Forget reference values that are needed neither at these cuts nor at the end."""
        self.reference.keep(set(self.graph.outputs).union(*map(self._crossing, cuts)))

    def _scan(self, start: int, end: int) -> _Found | None:
        """The first node that is wrong by itself, though the stretch it is in hides it."""
        for first in range(start, end, _AT_ONCE):
            last = min(first + _AT_ONCE, end)
            self.reference.values(sorted(self._before(last) - self._before(first)))
            for low in range(first, last):
                verdict = self._judge(low, low + 1)
                if verdict.wrong:
                    return _Found(low, low + 1, verdict, NODE)
            self._keep(last, end)
        return None

    def _grown(self, start: int, end: int, *, blind: bool) -> _Found:
        """Where, from right values at `start`, the error first leaves what is allowed; `end` is beyond it."""
        low, high = start, end
        verdict = self._judge(start, end, blind=blind)
        while high - low > 1:
            middle = (low + high) // 2
            found = self._judge(start, middle, blind=blind)
            if found.wrong:
                high, verdict = middle, found
            else:
                low = middle
        return _Found(low, high, verdict, GROWTH)

    def _judge(self, low: int, high: int, *, blind: bool = False) -> _Verdict:
        """The nodes between two cuts, fed with right values; `blind`: noise on the inputs excuses nothing."""
        targets = self._crossing(high) - self._before(low)
        part = self._part(targets, low)
        run = self.load(part)
        got, want = run(part.feeds), self.reference.values(targets)
        errors = {name: relative_error(want[name], got[name]) for name in sorted(targets)}
        at = max(errors, key=lambda name: errors[name])
        least = self.noise.least
        largest = errors[at]
        if blind or largest <= least:
            return _Verdict(at, largest, least, largest)
        noisy = run(self._with_noise(part.feeds))
        allowed = {
            name: max(least, self.noise.margin * _finite(relative_error(got[name], noisy[name])))
            for name in errors
        }
        at = max(errors, key=lambda name: errors[name] / allowed[name])
        return _Verdict(at, errors[at], allowed[at], largest)

    def _part(self, targets: Iterable[str], low: int) -> Part:
        available = self._before(low)
        _, needed = self.graph.way(targets, [*available, *self.inputs])
        right = self.reference.values(name for name in sorted(needed) if name not in self.inputs)
        return self.graph.part(sorted(targets), self.inputs | dict(right))

    def _end_error(self, outputs: list[str], right: Mapping[str, Array]) -> float:
        """Relative L2 of the worst output, with the tensors in `right` replaced."""
        want = self.reference.values(outputs)
        given = [name for name in outputs if name in right]
        part = self.graph.part([name for name in outputs if name not in given], self.inputs | dict(right))
        got = dict(right) | (self.load(part)(part.feeds) if part.outputs else {})
        return max(relative_error(want[name], got[name]) for name in outputs)

    def _module(self, tensor: str, low: int, kind: str) -> str:
        """The innermost module around all nodes that may be at fault."""
        if kind == GROWTH:
            return self.graph.module_of(tensor)
        nodes, _ = self.graph.way([tensor], [*self._before(low), *self.inputs])
        between = [at for at in nodes if at >= self._position(low)]
        paths = [self.graph.scopes[at] for at in between]
        shared = [path for path in paths[0] if all(path in other for other in paths)]
        return shared[-1] if shared else ""

    def _position(self, cut: int) -> int:
        return self.cuts[cut]

    def _before(self, cut: int) -> set[str]:
        return {name for name in self.known if self.graph.maker[name] < self._position(cut)}

    def _crossing(self, cut: int) -> set[str]:
        """Known tensors made before a cut that are needed behind it."""
        position = self._position(cut)
        return {name for name in self._before(cut) if self.graph.lives_after(name, position)}

    def _with_noise(self, feeds: Feeds) -> dict[str, Array]:
        draw = np.random.default_rng(_SEED)
        return {name: _noisy(array, self.noise.unit, draw) for name, array in feeds.items()}


def _noisy(array: Array, unit: float, draw: np.random.Generator) -> Array:
    if not np.issubdtype(array.dtype, np.floating):
        return array
    signs = draw.integers(0, 2, array.shape) * 2 - 1
    return (array.astype(np.float64) * (1 + unit * signs)).astype(array.dtype)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
