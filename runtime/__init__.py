"""Streaming dubbing: media, faces, audio, devices, the dub job and the command line. No torch, no onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dubstream.runtime.artifacts import find_artifacts
    from dubstream.runtime.job.dub import dub
    from dubstream.runtime.job.summary import DubSummary
    from dubstream.runtime.options.backend import Backend
    from dubstream.runtime.options.dub import DubOptions, DubRequest

__all__ = ["Backend", "DubOptions", "DubRequest", "DubSummary", "dub", "find_artifacts"]

_HOMES = {
    "Backend": "options.backend",
    "DubOptions": "options.dub",
    "DubRequest": "options.dub",
    "DubSummary": "job.summary",
    "dub": "job.dub",
    "find_artifacts": "artifacts",
}


def __getattr__(name: str) -> Any:
    """Load the public names when they are first used: importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
