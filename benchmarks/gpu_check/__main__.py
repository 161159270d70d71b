"""Everything only a GPU can show, checked and timed by one command.

`python -m dubstream.benchmarks.gpu_check --device cuda:0 --artifacts DIR --out rows.jsonl`

| part | what |
|---|---|
| kernels | every CUDA kernel against its numpy reference; launch times |
| streamer | copies and compute side by side, from the trace; slots not mixed up; 1, 2 and 3 slots |
| full | the complete system as a stream: its frames against the CPU's; frames per second |
| engines | ONNX Runtime CUDA and TensorRT against ONNX Runtime on the CPU |
| fidelity | FP16 artifacts against FP32 ones |
| networks | frames per second against PyTorch eager and torch.compile, in turn in one run |

All of it for all networks takes longer than a short lease of a GPU. Two turns of ten minutes on one machine,
which keeps the plans it built (an estimate: nothing of this has run on a GPU yet; `--minutes` sees to it):

    --parts kernels,streamer,full,networks --batches 1,8 --minutes 8
    --parts fidelity,networks --networks FACES --batches 8 --minutes 8

FACES is s3fd,retinaface,fan4,gfpgan,gpen,parsenet,ganimation. What would begin after that time is not run,
and says so.

Parts are independent. Every row has a status: passed, failed (with the reason), or not run (with what is
lacking). Exit code 0; 1 when a row failed; 3 when nothing could run. `--device host` and `--quick` are dry
runs of the script on toy shapes: their rows say `"dry_run": true` and are no figures of anything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from dubstream.benchmarks.gpu_check import engines, fidelity, full_quality, kernels, networks, streamer
from dubstream.benchmarks.gpu_check.journal import Journal
from dubstream.benchmarks.gpu_check.setting import Setting
from dubstream.engines.errors import UsageError
from dubstream.engines.specs import SPECS

PARTS: dict[str, Callable[[Setting, Journal], None]] = {
    "kernels": kernels.check,
    "streamer": streamer.check,
    "full": full_quality.check,
    "engines": engines.check,
    "fidelity": fidelity.check,
    "networks": networks.check,
}


def run(setting: Setting, parts: Sequence[str], journal: Journal) -> int:
    """Run parts one after the other; the exit code."""
    for name in parts:
        with journal.part(name):
            PARTS[name](setting, journal)
    return journal.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dubstream.benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", required=True, metavar="cuda:N|host")
    parser.add_argument("--artifacts", type=Path, help="folder of exported networks")
    parser.add_argument("--out", type=Path, help="rows are written here; default: standard output")
    parser.add_argument("--quick", action="store_true", help="a dry run on toy shapes")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: all, %(default)s")
    parser.add_argument("--networks", default="dnet,lnet,enet", help="default: %(default)s")
    parser.add_argument("--batches", default="1,4,8,16", help="of part networks; default: %(default)s")
    parser.add_argument("--minutes", type=float, help="nothing begins later; default: no limit")
    chosen = parser.parse_args(arguments)
    parts, names = chosen.parts.split(","), tuple(chosen.networks.split(","))
    for what, given, known in (("part", parts, PARTS), ("network", names, SPECS)):
        if wrong := set(given) - set(known):
            parser.error(f"unknown {what} {', '.join(sorted(wrong))}, expected some of {', '.join(known)}")
    try:
        setting = Setting(chosen.device, chosen.artifacts, chosen.quick, names, _numbers(chosen.batches))
    except UsageError as error:
        parser.error(error.message)
    with ExitStack() as stack:
        out = sys.stdout if chosen.out is None else stack.enter_context(chosen.out.open("w"))
        journal = Journal(setting.facts(), out, minutes=chosen.minutes)
        code = run(setting, parts, journal)
    print(*journal.summary(), sep="\n", file=sys.stderr)
    return code


def _numbers(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise UsageError(f"received batches '{text}', expected whole numbers from 1, e.g. 1,8")
    return tuple(map(int, numbers))


if __name__ == "__main__":
    sys.exit(main())
