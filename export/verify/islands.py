"""Which modules of a half-precision network would have to stay float32: the smallest set that helps.

Candidates are ordered by how much they add to the error, as many are taken as it needs, and what is not
needed is taken out again by delta debugging (Zeller and Hildebrandt 2002, "Simplifying and isolating
failure-inducing input"). Every step is a run with exactly these modules exempt from rounding, compared by the
tolerances of the spec, and by the recipe's limit of magnitudes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx

from dubstream.engines.contract import NetworkSpec
from dubstream.export.fidelity import Array, Case, Run, assess
from dubstream.export.half_check import growth
from dubstream.export.precision import Island
from dubstream.export.verify.islands_emulation import Emulation

EMULATION = "emulation"
EXPORT = "export"

_REASON = "proposed by dubstream verify: half precision leaves the tolerance here"
_CORE = "core."  # a picture network's word for the network inside it, where recipes look for islands

Reference = Sequence[Mapping[str, Array]]
_Hard = tuple[Case, Mapping[str, Array]]


@dataclass(frozen=True)
class IslandProposal:
    """Modules that have to stay float32; without any one of them the link fails again.

    Attributes:
        modules: dotted paths in the exported graph, in the order of computation.
        classes: names of their classes, as far as they are known; what one would write into a recipe.
        before: largest relative L2 error of any output without them; infinite where a result was not finite.
        after: the same with them.
        proven_by: ``"emulation"`` of the rounding, or ``"export"``: exported again with these islands, and
            published by the rules of every export.
        trials: how many sets were tried.
        problem: what failed without them, in words.
        doubt: why the proof by export did not succeed; "" where it did or was not tried.
    """

    modules: tuple[str, ...]
    classes: tuple[str, ...]
    before: float
    after: float
    proven_by: str
    trials: int
    problem: str
    doubt: str = ""

    def islands(self) -> tuple[Island, ...]:
        """The modules for a `PrecisionRecipe`."""
        return tuple(Island(re.escape(path.removeprefix(_CORE)), _REASON) for path in self.modules)

    def as_json(self) -> dict[str, Any]:
        """A plain form for JSON; an error that is not finite becomes None."""
        plain = asdict(self) | {"modules": list(self.modules), "classes": list(self.classes)}
        return {key: None if value == math.inf else value for key, value in plain.items()}

    def __str__(self) -> str:
        classes = f" ({', '.join(self.classes)})" if self.classes else ""
        return (
            f"float32 in {', '.join(self.modules)}{classes}: relative L2 {self.before:.1e} becomes "
            f"{self.after:.1e}, proven by {self.proven_by}"
        )


def propose_islands(
    model: onnx.ModelProto,
    spec: NetworkSpec,
    cases: Sequence[Case],
    reference: Reference,
    *,
    limit: float,
    threads: int = 1,
    classes: Mapping[str, str] | None = None,
    exact: onnx.ModelProto | None = None,
) -> IslandProposal | None:
    """The smallest set of modules that must be float32 for a half-precision model to hold.

    The set is minimal in that no module can be left out; another one of fewer modules may exist.

    Args:
        model: the half-precision model, of which no session has to be right.
        spec: the contract with its tolerances.
        cases: inputs, as `half_cases` makes them.
        reference: the float32 outputs, one entry per case, as `levels_runner` gives them.
        limit: magnitudes from here on are refused, `PrecisionRecipe.limit`.
        threads: CPU threads.
        classes: class of a module by its path in the graph, see `module_classes`.
        exact: the float32 twin of the model, see `exact_twin`; without it an island's weights stay as they
            were rounded, and one whose trouble is in them is not found.

    Returns:
        None where the model holds as it is, and where it fails with every module as an island: then
        rounding of results is not what is wrong.
    """
    trial = _Trial(Emulation(model, threads, exact), spec, cases, reference, limit)
    problem = trial.problem(())
    if not problem:
        return None
    before = trial.error
    found = _searched(model, trial, threads)
    if found is None:
        return None
    return IslandProposal(
        modules=tuple(found),
        classes=tuple(sorted({classes[path] for path in found if path in classes} if classes else ())),
        before=before,
        after=trial.error,
        proven_by=EMULATION,
        trials=trial.count,
        problem=problem,
    )


class _Trial:
    """Asks whether a set of islands is enough, on few inputs first.

    Attributes:
        count: sets tried.
        error: largest relative L2 of the last call of `problem`.
    """

    def __init__(
        self,
        emulation: Emulation,
        spec: NetworkSpec,
        cases: Sequence[Case],
        reference: Reference,
        limit: float,
    ) -> None:
        self.emulation = emulation
        self._spec, self._cases, self._reference, self._limit = spec, cases, reference, limit
        self._peaks = _largest([emulation.peaks(case.inputs) for case in cases])
        self._hard: list[_Hard] = []
        self._known: dict[frozenset[str], bool] = {}
        self.count, self.error = 0, 0.0

    @property
    def inputs(self) -> Mapping[str, Array]:
        """Those that fail."""
        return self._hard[0][0].inputs if self._hard else self._cases[0].inputs

    @property
    def large(self) -> list[str]:
        """Tensors beyond the limit."""
        return [name for name, peak in self._peaks.items() if not peak < self._limit]

    def problem(self, islands: Sequence[str]) -> str:
        """What fails on all inputs with these islands; "" for nothing. Remembers the inputs that do."""
        chosen = frozenset(islands)
        self.count += 1
        self.error = 0.0
        said: list[str] = []
        for case, want in zip(self._cases, self._reference, strict=True):
            rows, problems = assess(self._spec, [case], [want], self._noting(chosen))
            self.error = max([self.error, *(row.relative_l2 for row in rows)])
            if problems:
                self._hard.append(self._shortened(case, want, chosen))
                self._known.clear()
            said += problems
        rounded = set(self.emulation.rounded(chosen))
        said += [f"tensor '{name}' reaches {self._peaks[name]:.3g}" for name in self.large if name in rounded]
        return said[0] if said else ""

    def holds(self, islands: Sequence[str]) -> bool:
        """Whether these islands are enough for the inputs that have failed so far."""
        chosen = frozenset(islands)
        if chosen not in self._known:
            self.count += 1
            self._known[chosen] = self._fits(chosen)
        return self._known[chosen]

    def _fits(self, chosen: frozenset[str]) -> bool:
        if not set(self.large).isdisjoint(self.emulation.rounded(chosen)):
            return False
        run = self._runner(chosen)
        return not any(assess(self._spec, [case], [want], run)[1] for case, want in self._hard)

    def _shortened(self, case: Case, want: Mapping[str, Array], chosen: frozenset[str]) -> _Hard:
        """The first item of a case that fails, if it fails alone; trials then take a fraction of the time."""
        first = {name: values[:1] for name, values in case.inputs.items()}
        item = Case(case.name, first, ((0, 1),))
        wanted = {name: values[:1] for name, values in want.items()}
        fails = assess(self._spec, [item], [wanted], self._runner(chosen))[1]
        return (item, wanted) if fails else (case, want)

    def _runner(self, chosen: frozenset[str]) -> Run:
        return partial(self.emulation.run, chosen)

    def _noting(self, chosen: frozenset[str]) -> Run:
        def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
            got = self.emulation.run(chosen, inputs)
            if not all(np.isfinite(array).all() for array in got.values()):
                self.error = math.inf
            return got

        return run


def _searched(model: onnx.ModelProto, trial: _Trial, threads: int) -> list[str] | None:
    """A smallest set that holds on all inputs, in the order of computation."""
    emulation = trial.emulation
    grown = (tensor.name for tensor, _ in growth(model, trial.inputs, threads))
    ranked = [*trial.large, *grown, *emulation.tensors]
    for level in range(emulation.depth):
        modules = _distinct(emulation.module_of(name, level) for name in ranked)
        while trial.holds(modules):
            found = _narrowed(emulation, smallest(_enough(modules, trial.holds), trial.holds), trial.holds)
            found.sort(key=_distinct(_every_module(emulation)).index)
            if not trial.problem(found):
                return found
    return None


def _enough(ranked: Sequence[str], holds: Callable[[Sequence[str]], bool]) -> list[str]:
    """The first one, two, four, ... that hold; all of them do."""
    count = 1
    while count < len(ranked) and not holds(ranked[:count]):
        count *= 2
    return list(ranked[:count])


def smallest(items: Sequence[str], holds: Callable[[Sequence[str]], bool]) -> list[str]:
    """A subset that holds and of which nothing can be left out; `items` hold, nothing at all does not."""
    kept, parts = list(items), 2
    while len(kept) > 1:
        size = math.ceil(len(kept) / parts)
        for first in range(0, len(kept), size):
            rest = kept[:first] + kept[first + size :]
            if rest and holds(rest):
                kept, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(2 * parts, len(kept))
    return kept


def _narrowed(emulation: Emulation, found: list[str], holds: Callable[[Sequence[str]], bool]) -> list[str]:
    """Each module replaced by modules inside it where these are enough."""
    waiting, done = list(found), list[str]()
    while waiting:
        module, others = waiting[0], [*done, *waiting[1:]]
        inner = emulation.modules_in(module)
        if inner and holds([*others, *inner]):
            waiting[:1] = smallest(inner, partial(_holds_with, holds, others))
        else:
            done.append(waiting.pop(0))
    return done


def _holds_with(holds: Callable[[Sequence[str]], bool], others: Sequence[str], some: Sequence[str]) -> bool:
    return holds([*others, *some])


def _every_module(emulation: Emulation) -> list[str]:
    levels = range(emulation.depth)
    return [emulation.module_of(name, level) for name in emulation.tensors for level in levels]


def _distinct(paths: Any) -> list[str]:
    return [path for path in dict.fromkeys(paths) if path]


def _largest(peaks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Per tensor over all cases; a value that is no number counts as infinite."""
    return {
        name: max(math.inf if math.isnan(entry[name]) else entry[name] for entry in peaks)
        for name in peaks[0]
    }
