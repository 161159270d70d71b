"""All runs of one network in one domain: the planes of its float32 spec, or the pictures of its halves."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from polygraphy.comparator import Comparator, IterationResult, RunResults
from polygraphy.logger import G_LOGGER

from dubstream.engines.contract import NetworkSpec
from dubstream.export.fidelity import Array
from dubstream.export.verify.agreement import Judge
from dubstream.export.verify.inputs import Probe
from dubstream.export.verify.result import CaseRow
from dubstream.export.verify.runners import Load, SpecRunner

_log = logging.getLogger("dubstream.verify")


class Domain:
    """Probes of one spec, and what every link made of them.

    Attributes:
        spec: inputs and outputs; of the half precisions, which differ in tolerances alone, any.
        probes: the inputs.
        results: Polygraphy's results by link name, one iteration per probe.
    """

    def __init__(self, spec: NetworkSpec, probes: Sequence[Probe]) -> None:
        self.spec, self.probes = spec, list(probes)
        self.results = RunResults()

    def run(self, name: str, load: Load) -> float:
        """Run all probes in one executor; returns the seconds it computed. Raises what `load` raises."""
        _log.info("%s: running %s on %d probes", self.spec.name, name, len(self.probes))
        feeds = [OrderedDict(probe.inputs) for probe in self.probes]
        with quiet_polygraphy():
            made = Comparator.run([SpecRunner(name, self.spec, load)], data_loader=feeds)
        self.results.extend(made)
        return float(sum(iteration.runtime for iteration in made[name]))

    def outputs(self, name: str) -> list[Mapping[str, Array]]:
        """What the link called `name` gave, probe by probe."""
        return [dict(iteration.items()) for iteration in self.results[name]]

    def compare(self, name: str, against: str, judge: Judge) -> tuple[CaseRow, ...]:
        """Rows of all probes and outputs of link `name` against another link's."""
        rows: list[CaseRow] = []
        for index, probe in enumerate(self.probes):

            def compared(
                want: IterationResult, got: IterationResult, probe: Probe = probe
            ) -> Mapping[str, CaseRow]:
                found = judge(probe, dict(want.items()), dict(got.items()))
                rows.extend(found)
                return OrderedDict((row.output, row) for row in found)

            pair = RunResults([(link, [self.results[link][index]]) for link in (against, name)])
            with quiet_polygraphy():
                Comparator.compare_accuracy(pair, compare_func=compared)
        return tuple(rows)


@contextmanager
def quiet_polygraphy() -> Iterator[None]:
    """Polygraphy prints to standard output, which is for results alone; errors are raised in any case."""
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        yield
