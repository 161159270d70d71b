"""A bounded queue between two threads that can end (`finish`) or be torn down (`abort`)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

POLL_S = 0.1
"""How often a waiting thread looks at its cancel hook, in seconds."""


class FinishedError(Exception):
    """`Channel.get`: the producer finished and everything was taken."""


class AbortedError(Exception):
    """`Channel.get` and `put`: another thread called `abort`."""


class Channel(Generic[T]):
    """First in, first out, at most `capacity` items; `put` and `get` wait.

    Args:
        capacity: most items held; at least 1.
        items: what it holds from the start.
    """

    def __init__(self, capacity: int, items: Iterable[T] = ()) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque(items)
        self._changed = threading.Condition()
        self._finished = False
        self._aborted = False

    def put(self, item: T) -> None:
        """Append `item`, waiting while the channel is full; raises `AbortedError`."""
        with self._changed:
            self._await(lambda: len(self._items) < self._capacity, None)
            self._items.append(item)
            self._changed.notify_all()

    def get(self, poll: Callable[[], None] | None = None) -> T:
        """Take the oldest item, waiting for one.

        Args:
            poll: called now and then while waiting; what it raises ends the wait.

        Raises:
            FinishedError, AbortedError: see there.
        """
        with self._changed:
            self._await(lambda: bool(self._items) or self._finished, poll)
            if not self._items:
                raise FinishedError
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def finish(self) -> None:
        """No more items will come; those inside can still be taken."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Drop the items and end every wait, now and later."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()

    def _await(self, ready: Callable[[], bool], poll: Callable[[], None] | None) -> None:
        while not self._aborted and not ready():
            self._changed.wait(POLL_S if poll else None)
            if poll:
                poll()
        if self._aborted:
            raise AbortedError
