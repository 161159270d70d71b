"""Engines for as long as a pass needs them: networks of the other pass take no memory meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dubstream.engines.artifact import Artifact
from dubstream.engines.engine import Engine
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine


class EnginePool:
    """Loads networks on the chosen backend.

    Args:
        threads: threads of one network call; None for all CPUs.
        batch: largest batch that will be asked for.
    """

    def __init__(self, *, threads: int | None, batch: int) -> None:
        self._threads = threads
        self._batch = batch

    @contextmanager
    def opened(self, artifact: Artifact) -> Iterator[Engine]:
        """The engine of a verified artifact, closed when the block ends."""
        engine = OnnxRuntimeEngine(
            artifact.path,
            artifact.spec,
            threads=self._threads,
            max_batch=min(self._batch, artifact.spec.max_batch),
        )
        with engine:
            yield engine
