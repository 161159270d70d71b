"""The subprocess with the fake driver: the parent's handle on it, and its own main loop.

One line of JSON per test goes in (file, function, values), one comes out: empty when it passed, else the
traceback. Starting Python with numpy and pycuda takes half a second, so tests share a process.
"""

from __future__ import annotations

import gc
import importlib.util
import inspect
import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from fake_cuda.control import FakeCuda

TESTS = Path(__file__).resolve().parents[1]
PATIENCE_S = 100


class Child:
    """A subprocess with the fake driver, started at the first test and after every failed one.

    Args:
        driver: folder with ``libcuda.so.1`` and ``kernels.so``.
        site: folder with pycuda.
        environment: more variables for it.
    """

    def __init__(self, driver: Path, site: Path, environment: Mapping[str, str] | None = None) -> None:
        self._driver, self._site = driver, site
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[str] | None = None

    def alone(self, environment: Mapping[str, str]) -> Child:
        """Another one, with more variables."""
        return Child(self._driver, self._site, environment)

    def run(self, test: Callable[..., None], values: Mapping[str, Any]) -> str:
        """Run a test function of a file; empty, or what went wrong."""
        process = self._process or self._start()
        job = json.dumps([inspect.getfile(test), test.__name__, dict(values)])
        assert process.stdin is not None
        process.stdin.write(job + "\n")
        process.stdin.flush()
        said = self._answer(process)
        if said:
            self.close()
        return said

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
            self._complaints.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[str]:
        paths = [str(self._site), str(TESTS), os.environ.get("PYTHONPATH", "")]
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "fake_cuda.child", str(self._driver / "kernels.so")],
            env={
                **os.environ,
                **self._environment,
                "PYTHONPATH": os.pathsep.join(paths),
                "LD_LIBRARY_PATH": str(self._driver),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        return self._process

    def _answer(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
        line = process.stdout.readline() if ready else ""
        self._complaints.seek(0)
        complaints = self._complaints.read()
        if not line:
            return f"no answer within {PATIENCE_S} s, or the process ended: {process.poll()}\n{complaints}"
        said: str = json.loads(line)
        return said or (complaints if "PyCUDA" in complaints else "")


def _load(path: str) -> Any:
    file = Path(path)
    if file.stem not in sys.modules:
        # Helpers lie beside a test or in a folder above it, as with pytest's own path.
        sys.path[:0] = [str(folder) for folder in file.parents if folder.is_relative_to(TESTS)]
        specification = importlib.util.spec_from_file_location(file.stem, file)
        assert specification is not None
        assert specification.loader is not None
        module = sys.modules[file.stem] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    return sys.modules[file.stem]


def _main(kernels: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what tests print must not look like an answer
    fake = FakeCuda(kernels)
    for line in sys.stdin:
        path, name, values = json.loads(line)
        gc.collect()
        fake.reset()
        said = ""
        try:
            inspect.unwrap(getattr(_load(path), name))(fake, **values)
        # pytest's own failures are no Exception.
        except BaseException:
            said = traceback.format_exc()
        answers.write(json.dumps(said) + "\n")
        answers.flush()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
