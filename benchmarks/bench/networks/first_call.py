"""What the first call costs, measured in a process of its own: opening, first run, memory.

`python -m dubstream.benchmarks.bench.networks.first_call JSON` prints one JSON object. The artifact's digest
is checked first, so its pages are in the system's cache when opening is timed. A TensorRT plan that has to
be built first is part of opening.

Memory on the host is the growth of the process's peak resident set (VmHWM) over what it held before the
engine was opened: weights, arena, libraries and buffers. On a GPU it is how much less memory is free on the
device afterwards, which other processes disturb.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from dubstream.engines.artifact import open_artifact
from dubstream.engines.errors import InternalError
from dubstream.engines.specs import spec_of
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import StreamOptions
from dubstream.runtime.platforms.platform import open_platform

_STATUS = Path("/proc/self/status")
_LONGEST_S = 3600.0  # a TensorRT plan may have to be built


@dataclass(frozen=True)
class FirstCall:
    """What to measure.

    Attributes:
        folder: of the artifact.
        network, precision, backend, device: as on the command line.
        batch: items.
        threads: of one run.
    """

    folder: str
    network: str
    precision: str
    backend: str
    device: int
    batch: int
    threads: int


def measured_apart(call: FirstCall) -> dict[str, Any]:
    """Measure in a child process.

    Returns:
        ``open_ms``, ``first_run_ms``, ``second_run_ms``, ``memory_mib`` and ``memory_kind``.

    Raises:
        InternalError: the child failed; with its last line.
    """
    command = [sys.executable, "-m", __name__, json.dumps(asdict(call))]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_S)
    if answer.returncode != 0:
        last = answer.stderr.strip().splitlines()[-1:] or ["no message"]
        raise InternalError(f"the first call of {call.network} in a process of its own failed: {last[0]}")
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def measure(call: FirstCall) -> dict[str, Any]:
    """Measure in this process, which should have done nothing else."""
    from dubstream.benchmarks.bench.networks.variants import Resident, opened_engine, seeded_batch

    artifact = open_artifact(Path(call.folder), spec_of(call.network, call.precision), call.precision)
    inputs = seeded_batch(artifact.spec, call.batch)
    backend = Backend(call.backend, call.device, call.precision)
    with open_platform(backend, StreamOptions(threads=call.threads)) as platform:
        before = _memory(backend)
        began = perf_counter()
        with opened_engine(platform, artifact, call.threads) as engine:
            opened = perf_counter()
            resident = Resident(platform.device, engine, inputs)
            resident.run()
            first = perf_counter()
            resident.run()
            second = perf_counter()
            after = _memory(backend)
            resident.close()
    return {
        "open_ms": 1000 * (opened - began),
        "first_run_ms": 1000 * (first - opened),
        "second_run_ms": 1000 * (second - first),
        "memory_mib": (after - before) / (1 << 20),
        "memory_kind": "device memory in use" if backend.on_gpu else "growth of the peak resident set",
    }


def _memory(backend: Backend) -> int:
    """Bytes: in use on the device, or the peak of this process so far."""
    if backend.on_gpu:
        from pycuda import driver

        free, whole = driver.mem_get_info()
        return int(whole - free)
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    print(json.dumps(measure(FirstCall(**json.loads(sys.argv[1])))))
