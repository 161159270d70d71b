"""Every CUDA kernel through its launcher, against its numpy reference, with launch times."""

from __future__ import annotations

from itertools import chain

import numpy as np

from dubstream.benchmarks.gpu_check.face_cases import face_cases
from dubstream.benchmarks.gpu_check.journal import CheckFailedError, Journal
from dubstream.benchmarks.gpu_check.kernel_bench import KernelBench, kernel_bench
from dubstream.benchmarks.gpu_check.kernel_cases import Array, KernelCase, kernel_cases
from dubstream.benchmarks.gpu_check.setting import Setting

REPEATS = 50


def check(setting: Setting, journal: Journal) -> None:
    """Rows ``kernels/NAME``: the comparison, and the time of one launch."""
    with kernel_bench(setting) as bench:
        for case in chain(kernel_cases(small=setting.small), face_cases(small=setting.small)):
            stage = f"kernels/{case.name}"
            with journal.guard(stage, shape=case.shape):
                facts = {"shape": case.shape, "through": bench.through}
                addresses = bench.place(case.arrays)
                case.launch(bench.launchers, addresses, bench.stream)
                journal.passed(stage, max_abs=_compared(bench, case), **facts)
                samples = bench.launch_ms(
                    lambda case=case, on=addresses: case.launch(bench.launchers, on, bench.stream),  # type: ignore[misc]
                    2 if setting.small else REPEATS,
                )
                journal.timed(stage + "/launch", "ms", samples, **facts)


def _compared(bench: KernelBench, case: KernelCase) -> float:
    worst = 0.0
    for name, wanted in case.expected().items():
        difference = np.abs(_wide(bench.read(name)) - _wide(wanted))
        largest, differing = float(difference.max(initial=0)), np.count_nonzero(difference)
        if not largest <= case.max_abs or (case.share < 1 and differing > case.share * difference.size):
            raise CheckFailedError(
                f"'{name}' differs from the reference by {largest:g} in {differing} of {difference.size} "
                f"elements, expected at most {case.max_abs:g}"
            )
        worst = max(worst, largest)
    return worst


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array.astype(np.int32)
