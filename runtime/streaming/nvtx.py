"""Named ranges in NVIDIA's profilers; nothing where the `nvtx` package is missing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

DOMAIN = "dubstream"
"""What the ranges are filed under in Nsight Systems."""

RangeOf = Callable[[str], AbstractContextManager[None]]


class _Range:
    """One named range; may be entered again and again, and inside itself."""

    def __init__(self, domain: Any, name: str) -> None:
        self._domain = domain
        self._attributes = domain.get_event_attributes(message=name)

    def __enter__(self) -> None:
        self._domain.push_range(self._attributes)

    def __exit__(self, *exc: object) -> None:
        self._domain.pop_range()


def nvtx_ranges() -> RangeOf:
    """A function from a name to its range, a context manager; the same object for the same name."""
    try:
        nvtx = importlib.import_module("nvtx")
    except ImportError:
        nothing = nullcontext()
        return lambda name: nothing
    domain = nvtx.get_domain(DOMAIN)
    return cache(lambda name: _Range(domain, name))
