"""Runs inside the checker's process: builds what a job lists with dubstream's own builder, writes a report.

    PYTHONPATH=<assembled checker> python driver.py job.json report.json

A job is a list of {"model", "spec", "options", "plan", "interrupt_at", "fail_at"}; the report has one
dictionary per item.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from dubstream.engines.contract import NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.errors import DubError
from dubstream.engines.tensorrt import builder, compat
from dubstream.engines.tensorrt.options import BuildOptions
from dubstream.engines.tensorrt.watch import logger


def spec_from(plain: dict[str, Any]) -> NetworkSpec:
    """The spec whose `as_json` is `plain`."""
    sides = {
        side: tuple(TensorSpec(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in plain[side])
        for side in ("inputs", "outputs")
    }
    tolerances = {name: Tolerance(**values) for name, values in plain["tolerances"].items()}
    return NetworkSpec(**{**plain, **sides, "tolerances": tolerances})


def layers(model: Path, name: str) -> list[dict[str, Any]]:
    """Name, type and output element types of every parsed layer."""
    trt = compat.load()
    network = trt.Builder(logger(trt)).create_network(compat.network_flags(trt))
    parser = builder.parse(trt, network, model, name)
    found = []
    for layer in map(network.get_layer, range(network.num_layers)):
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        dtypes = [output.dtype.name for output in outputs if output is not None]
        found.append({"name": layer.name, "type": layer.type.name, "dtypes": dtypes})
    del parser
    return found


def run(item: dict[str, Any]) -> dict[str, Any]:
    """Build one item."""
    steps: list[tuple[str, int, int]] = []

    def progress(phase: str, done: int, total: int) -> None:
        steps.append((phase, done, total))
        if len(steps) == item.get("interrupt_at"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(2)  # the main thread notices before the builder goes on, also on a busy machine
        if len(steps) == item.get("fail_at"):
            raise ValueError("the callback failed")

    options = dict(item.get("options", {}))
    if "timing_cache" in options:
        options["timing_cache"] = Path(options["timing_cache"])
    report: dict[str, Any] = {"error": None}
    started = time.perf_counter()
    try:
        spec, model = spec_from(item["spec"]), Path(item["model"])
        plan = builder.build_plan(model, spec, BuildOptions(**options), progress=progress)
    except (DubError, KeyboardInterrupt, ValueError) as error:
        report |= {"error": type(error).__name__, "message": str(error)}
    else:
        report |= {"bytes": len(plan), "layers": layers(model, spec.name)}
        Path(item["plan"]).write_bytes(plan)
    return report | {"seconds": time.perf_counter() - started, "steps": steps}


def main(job: Path, report: Path) -> None:
    """Run every item of `job`."""
    report.write_text(json.dumps([run(item) for item in json.loads(job.read_text())]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
