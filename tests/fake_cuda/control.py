"""The fake driver as tests see it: choose when work runs, plant failures, read the log."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

LIVE = (
    "device_blocks",
    "host_blocks",
    "streams",
    "events",
    "graphs",
    "executables",
    "contexts",
    "pageable",
    "legacy",
)
POLICIES = ("lazy", "eager", "random")
KINDS = ("upload", "download", "device_copy", "fill", "kernel", "record", "wait", "graph")


class Entry(NamedTuple):
    """One line of the log.

    Attributes:
        phase: ``issue`` (enqueued), ``run`` (done), ``capture`` (into a graph), ``call``, ``refused``.
        name: kind of operation, kernel name or name of the call.
        stream: number of the stream, 0 for the legacy stream, -1 for none.
        event: number of the event or graph, 0 for none.
        target, source, bytes: addresses and size of a copy.
        thread: number of the thread that called, or that waited when the work ran.
    """

    phase: str
    name: str
    stream: int
    event: int
    target: int
    source: int
    bytes: int
    thread: int


class FakeCuda:
    """Control of the fake driver in this process, which pycuda has loaded or will load."""

    def __init__(self, kernels: Path) -> None:
        self.kernels = kernels
        self._library = ctypes.CDLL("libcuda.so.1")
        self._library.fake_live.restype = ctypes.POINTER(ctypes.c_int)
        self._library.fake_log.restype = ctypes.c_size_t

    def policy(self, name: str, *, seed: int = 0, slow: tuple[str, ...] = ()) -> None:
        """When queued work runs: ``lazy``, ``eager`` or ``random``; kinds in `slow` always lazily."""
        mask = sum(1 << KINDS.index(kind) for kind in slow)
        self._library.fake_policy(POLICIES.index(name), ctypes.c_ulonglong(seed), mask)

    def gate_downloads(self, *, lead: int, total: int, seconds: float = 20.0) -> None:
        """Download j of `total` waits until j + 1 + `lead` uploads were issued; gives up after `seconds`."""
        self._library.fake_gate(lead, total, ctypes.c_double(seconds))

    def fail(self, call: str, error: int, *, after: int = 0, times: int = 1) -> None:
        """Let coming calls of a function of the driver fail: after so many good ones, so many times."""
        self._library.fake_fail(call.encode(), error, after, times)

    def reset(self) -> None:
        """As at the start of the process, but for what was not given back."""
        self._library.fake_reset()

    def forget(self) -> None:
        """End the gate and the failure of the context with all queued work, so that memory can be freed."""
        self._library.fake_forget()

    def log(self) -> list[Entry]:
        """Everything so far."""
        size = self._library.fake_log(None, 0)
        text = ctypes.create_string_buffer(size)
        self._library.fake_log(text, ctypes.c_size_t(size))
        lines = text.raw[:size].decode().splitlines()
        return [Entry(words[0], words[1], *map(int, words[2:])) for words in map(str.split, lines)]

    def live(self) -> dict[str, int]:
        """What was made and not given back, and counts of what should not happen."""
        return dict(zip(LIVE, self._library.fake_live()[: len(LIVE)], strict=True))

    @contextmanager
    def nothing_left(self) -> Iterator[None]:
        """Check that the block gives back everything it makes; contexts stay for the process."""
        before = self.live()
        yield
        gc.collect()
        after = self.live()
        assert after == {**before, "contexts": after["contexts"]}
        assert not [entry for entry in self.log() if entry.phase == "refused"]
