"""`over_fake_cuda`: run tests in a subprocess where pycuda and cuda-bindings find the fake driver."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_cuda.build import NoCompilerError, cache_folder, fake_driver, pycuda_site
from fake_cuda.child import Child
from fake_cuda.cubins import build_kernels
from trt_checker.assemble import IndexUnreachableError
from trt_checker.fixture import must_have_checker

FIRST_S = 1200
"""Time limit of a test that may be the first of its machine: pycuda is built for it, one to two minutes."""


@pytest.fixture(scope="session")
def fake_cuda_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The fake driver, pycuda. Skips where the index or a compiler is out of reach, and never in CI."""
    try:
        return fake_driver(tmp_path_factory.mktemp("fake_cuda")), pycuda_site(cache_folder())
    except (IndexUnreachableError, NoCompilerError) as error:
        if must_have_checker():
            raise
        pytest.skip(f"pycuda over a fake driver cannot be built: {error}")


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Our kernels, compiled once; the path goes to the subprocess."""
    return str(build_kernels(tmp_path_factory.mktemp("kernels") / "kernels.so"))


@pytest.fixture(scope="session")
def fake_cuda_child(fake_cuda_folders: tuple[Path, Path]) -> Iterator[Child]:
    """The subprocess that tests share; a failed test leaves the next one a fresh one."""
    with Child(*fake_cuda_folders) as child:
        yield child


def over_fake_cuda(**environment: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: the test's first parameter is a `FakeCuda`, its others are simple values of parametrisation.

    The body runs in the shared subprocess, or in one of its own with more environment variables; warnings are
    errors. Complaints of pycuda about its clean-up fail the test.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def outer(fake_cuda_child: Child, **values: Any) -> None:
            if environment:
                with fake_cuda_child.alone(environment) as child:
                    said = child.run(test, values)
            else:
                said = fake_cuda_child.run(test, values)
            if said:
                pytest.fail(f"in the subprocess:\n{said}", pytrace=False)

        inner = list(inspect.signature(test).parameters.values())[1:]
        shared = inspect.Parameter("fake_cuda_child", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        outer.__signature__ = inspect.Signature([shared, *inner])  # type: ignore[attr-defined]
        return pytest.mark.timeout(FIRST_S)(outer)

    return decorate
