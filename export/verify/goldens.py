"""Golden files: what the PyTorch roots said in an earlier run, small enough to be committed.

The file is Polygraphy's `RunResults`, so that its tools read it. Inputs are not in it: they are made anew
from their seed, and a digest tells whether they still are the same. Of every output there are some values,
picked by a seed, and the means of equal stretches of all of them, so that no large change hides between.
One more entry, ``recipe``, holds as JSON text what the golden was made from and how.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from polygraphy.comparator import RunResults

from dubstream.engines.atomic import atomic_file
from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec
from dubstream.engines.errors import ArtifactError
from dubstream.engines.storage import NotPlainFileError, TooLargeError, read_plain, storage_errors
from dubstream.export.fidelity import Array
from dubstream.export.verify.agreement import row_of
from dubstream.export.verify.domain import quiet_polygraphy
from dubstream.export.verify.inputs import SEEDED, Probe
from dubstream.export.verify.result import CaseRow

FORMAT = 1
VALUES, STRETCHES = 1024, 64
KINDS = (SEEDED,)
"""Probes a golden holds, the first item of each: those that are the same numbers on every machine. Real
pictures are stored as JPEG, which decoders read a level apart."""

MAX_BYTES = 16 << 20
_RECIPE = "recipe"
_HINT = "make it anew: dubstream verify ... --save FILE"


@dataclass(frozen=True)
class Recorded:
    """What one root gave for the golden's probes.

    Attributes:
        network, domain: whose; a domain is ``"planes"`` or ``"pictures"``.
        source: of the weights.
        probes: first items.
        outputs: the root's, probe by probe.
    """

    network: str
    domain: str
    source: str
    probes: Sequence[Probe]
    outputs: Sequence[Mapping[str, Array]]


@dataclass(frozen=True)
class Golden:
    """A golden file's content.

    Attributes:
        recipe: what it was made from.
        results: subsampled outputs by ``"network domain"``, one iteration per probe.
    """

    recipe: Mapping[str, Any]
    results: RunResults

    def holds(self, network: str, domain: str) -> bool:
        """Whether it has values of that network."""
        return _key(network, domain) in self.recipe["entries"]

    def compare(
        self, spec: NetworkSpec, domain: str, source: str, probe: Probe, outputs: Mapping[str, Array]
    ) -> tuple[CaseRow, ...]:
        """Rows of one probe's outputs against the golden; none where the golden has no such probe.

        Args:
            spec: outputs and tolerances.
            domain: see `Recorded`.
            source: of the weights now.
            probe, outputs: first items.

        Raises:
            ArtifactError: it was made from other weights or inputs: it says nothing about this network.
        """
        entry = self.recipe["entries"][_key(spec.name, domain)]
        if entry["source"] != source:
            raise ArtifactError(
                f"the golden of {spec.name} was made from {entry['source']}, expected {source}", hint=_HINT
            )
        if probe.name not in entry["probes"]:
            return ()
        if entry["probes"][probe.name] != _digest(probe.inputs):
            raise ArtifactError(
                f"the golden of {spec.name} was made from other inputs called '{probe.name}'", hint=_HINT
            )
        index = list(entry["probes"]).index(probe.name)
        stored = dict(self.results[_key(spec.name, domain)][index].items())
        return tuple(
            _row(spec, tensor, probe, stored[tensor.name], outputs[tensor.name]) for tensor in spec.outputs
        )


def golden_probes(probes: Sequence[Probe]) -> list[tuple[int, Probe]]:
    """Positions and first items of the probes that goldens hold."""
    return [(index, probe.first_item()) for index, probe in enumerate(probes) if probe.kind in KINDS]


def save_golden(path: Path, recorded: Sequence[Recorded], facts: Mapping[str, str]) -> None:
    """Write a golden file; it appears complete or not at all. Raises StorageError."""
    results = RunResults()
    entries = {}
    for part in recorded:
        key = _key(part.network, part.domain)
        entries[key] = {
            "source": part.source,
            "probes": {probe.name: _digest(probe.inputs) for probe in part.probes},
        }
        sampled = [
            {name: subsample(name, values) for name, values in outputs.items()} for outputs in part.outputs
        ]
        results.add(sampled, runtime=0.0, runner_name=key)
    recipe = {
        "format": FORMAT, "values": VALUES, "stretches": STRETCHES, "entries": entries, "facts": dict(facts)
    }  # fmt: skip
    text = np.frombuffer(json.dumps(recipe, sort_keys=True).encode(), np.uint8)
    results.add([{_RECIPE: text}], runtime=0.0, runner_name=_RECIPE)
    with storage_errors(path, "writing"), atomic_file(path) as part_path, quiet_polygraphy():
        results.save(str(part_path))


def load_golden(path: Path) -> Golden:
    """Read a golden file.

    Raises:
        ArtifactError: missing, too large, or not a golden file of this format.
        StorageError: it cannot be read.
    """
    try:
        raw = read_plain(path, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError, NotPlainFileError) as error:
        raise ArtifactError(f"{path}: expected a golden file, found none", hint=_HINT) from error
    except TooLargeError as error:
        raise ArtifactError(f"{path}: {error}, expected a golden file", hint=_HINT) from error
    try:
        with quiet_polygraphy():
            results = RunResults.from_json(raw.decode())
        recipe = json.loads(bytes(results[_RECIPE][0][_RECIPE]))
        if recipe["format"] != FORMAT or (recipe["values"], recipe["stretches"]) != (VALUES, STRETCHES):
            raise ValueError(f"format {recipe['format']}, expected {FORMAT}")
        _check(recipe, results)
    # Polygraphy's decoder lets any exception through, and the file may hold anything.
    except Exception as error:
        raise ArtifactError(f"{path}: not a golden file: {str(error)[:200]}", hint=_HINT) from error
    return Golden(recipe, results)


def subsample(name: str, values: Array) -> Array:
    """float32 (items, up to `VALUES` + `STRETCHES`): seeded values of each item, and means of its stretches.

    Args:
        name: of the output; it seeds the choice.
        values: (items, ...).
    """
    flat = values.reshape(len(values), -1).astype(np.float64)
    draw = np.random.default_rng(list(f"golden:{name}".encode()))
    chosen = np.sort(draw.permutation(flat.shape[1])[:VALUES])
    stretches = np.array_split(flat, min(STRETCHES, flat.shape[1]), axis=1)
    means = np.stack([stretch.mean(axis=1) for stretch in stretches], axis=1)
    return np.concatenate([flat[:, chosen], means], axis=1).astype(np.float32)


def _row(spec: NetworkSpec, tensor: TensorSpec, probe: Probe, stored: Array, output: Array) -> CaseRow:
    tolerance = spec.tolerances[tensor.name]
    flat = replace(tensor, shape=(BATCH, stored.shape[-1]))  # no picture any more
    return row_of(
        probe.name, flat, stored, subsample(tensor.name, output[:1]), tolerance,
        rule="golden", allowed=tolerance.max_abs,
    )  # fmt: skip


def _check(recipe: Mapping[str, Any], results: RunResults) -> None:
    for key, entry in recipe["entries"].items():
        if not isinstance(entry["source"], str) or len(results[key]) != len(entry["probes"]):
            raise ValueError(f"entry '{key}' does not fit its recipe")
        for values in _arrays(results, key):
            if not isinstance(values, np.ndarray) or values.dtype != np.float32:
                raise ValueError(f"entry '{key}' holds something else than float32 values")


def _arrays(results: RunResults, key: str) -> Iterator[Any]:
    for iteration in results[key]:
        yield from iteration.values()


def _key(network: str, domain: str) -> str:
    return f"{network} {domain}"


def _digest(inputs: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(inputs):
        values = np.ascontiguousarray(inputs[name])
        digest.update(f"{name} {values.dtype} {values.shape} ".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
