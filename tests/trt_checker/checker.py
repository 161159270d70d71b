"""The checker as tests see it: hand it models, get plans and reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.inspect_plan import PlanCensus, inspect_plan

DRIVER = Path(__file__).with_name("driver.py")


@dataclass(frozen=True)
class Built:
    """What the driver reported about one model.

    Attributes:
        report: the driver's dictionary.
        plan: the plan's bytes, None where there is an error.
    """

    report: dict[str, Any]
    plan: bytes | None

    @property
    def error(self) -> str | None:
        """Name of the exception, None where the plan was built."""
        error = self.report["error"]
        return None if error is None else f"{error}: {self.report['message']}"

    @property
    def census(self) -> PlanCensus:
        """Kernels of the plan."""
        assert self.plan is not None, self.error
        return inspect_plan(self.plan)

    def dtypes(self, layer: str) -> set[str]:
        """Output types of the layers whose name contains `layer`."""
        return {dtype for each in self.report["layers"] if layer in each["name"] for dtype in each["dtypes"]}

    def types(self) -> dict[str, list[str]]:
        """First output type of every layer, by layer type."""
        found: dict[str, list[str]] = {}
        for layer in self.report["layers"]:
            found.setdefault(layer["type"], []).extend(layer["dtypes"][:1])
        return found


@dataclass(frozen=True)
class Checker:
    """An assembled checker and a folder for its files."""

    site: Path
    scratch: Path

    def build(self, model: Path, spec: NetworkSpec, **extra: Any) -> Built:
        """Build one model; `extra` goes into its job item."""
        return self.build_all({"only": (model, spec)}, **extra)["only"]

    def build_all(self, models: dict[str, tuple[Path, NetworkSpec]], **extra: Any) -> dict[str, Built]:
        """Build several models in one process."""
        plans = {name: self.scratch / f"{os.getpid()}-{name}.plan" for name in models}
        items = [
            {"model": str(model), "spec": spec.as_json(), "plan": str(plans[name]), **extra}
            for name, (model, spec) in models.items()
        ]
        reports = self._run(items)
        return {
            name: Built(report, None if report["error"] else plans[name].read_bytes())
            for name, report in zip(models, reports, strict=True)
        }

    def _run(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        job, report = self.scratch / "job.json", self.scratch / "report.json"
        job.write_text(json.dumps(items))
        report.unlink(missing_ok=True)
        result = subprocess.run(
            [sys.executable, str(DRIVER), str(job), str(report)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(self.site), os.environ.get("PYTHONPATH", "")]),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.is_file():
            raise RuntimeError(f"the checker ended with {result.returncode}: {result.stderr[-3000:]}")
        reports: list[dict[str, Any]] = json.loads(report.read_text())
        return reports
