"""Strict loading of public checkpoints: everything fits, or one error lists everything that does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from dubstream.engines.errors import CheckpointError
from dubstream.engines.weights import checkpoint_source
from dubstream.export.checkpoint_file import read_checkpoint

_LISTED = 6  # names per kind of problem in one message

State = Mapping[str, Any]


@dataclass(frozen=True)
class Container:
    """How a network's state is packed in its checkpoint file.

    Attributes:
        key: top-level key that holds the state; other top-level keys (optimiser, step) are not looked at.
            None: the file is the state.
        prefix: put before every name by the training wrapper.
        ignored: patterns (`fnmatch`, after the prefix is gone) of keys that belong to another network. A
            name that the network has is never ignored.
        others: what stands for `key` in a file that lacks it, in the order tried.
        read: reads the file; its payload and the SHA-256 of its bytes.
        named: what the network expects and what the file holds to that under the network's names.
    """

    key: str | None
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    others: tuple[str | None, ...] = ()
    read: Callable[[Path], tuple[Any, str]] = read_checkpoint
    named: Callable[[Mapping[str, torch.Tensor], State], State] = lambda expected, state: state


@dataclass(frozen=True)
class Weights:
    """A state that fits its network.

    Attributes:
        state: every name of the network's `state_dict`, with finite CPU tensors of its shape and dtype.
        source: ``seeded:<salt>`` or ``checkpoint:<file name>:<sha256>``.
        ignored_keys: pattern and number of keys skipped on purpose.
        extra_keys: unexpected keys the user chose to accept.
    """

    state: dict[str, torch.Tensor]
    source: str
    ignored_keys: dict[str, int] = field(default_factory=dict)
    extra_keys: tuple[str, ...] = ()


def load_checkpoint(
    path: Path,
    container: Container,
    expected: Mapping[str, torch.Tensor],
    *,
    allow_extra_keys: bool = False,
) -> Weights:
    """Load the state of one network from a public checkpoint file.

    Args:
        path: the file; see `read_checkpoint` (or `container.read`) for what is refused unread.
        container: where the state is inside.
        expected: the network's own `state_dict()`; only names, shapes and dtypes are used.
        allow_extra_keys: accept names the network does not have, and report them.

    Raises:
        CheckpointError: the file is unusable or does not fit; the message lists missing, unexpected,
            misshaped and non-finite entries and entries that are no tensors, each kind up to a few names.
        StorageError: the file cannot be read.
    """
    payload, digest = container.read(path)
    named, ignored = _unwrap(path, payload, container, expected)
    problems = _Problems()
    state = {name: _fitting(name, named, like, problems) for name, like in expected.items()}
    extra = tuple(name for name in named if name not in expected)
    if not allow_extra_keys:
        problems.add_all("unexpected", extra)
    problems.raise_for(path, hint_extra=bool(extra) and not allow_extra_keys)
    return Weights(
        {name: tensor for name, tensor in state.items() if tensor is not None},
        checkpoint_source(path, digest),
        ignored,
        extra,
    )


class _Problems:
    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        self._names.setdefault(kind, []).append(name)

    def add_all(self, kind: str, names: Iterable[str]) -> None:
        for name in names:
            self.add(kind, name)

    def raise_for(self, path: Path, *, hint_extra: bool) -> None:
        if not self._names:
            return
        parts = []
        for kind, names in self._names.items():
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            parts.append(f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{more}")
        raise CheckpointError(
            f"{path} does not fit its network, nothing was loaded; {'; '.join(parts)}",
            hint="--allow-extra-keys accepts unexpected keys" if hint_extra else "is it the right file?",
        )


def _unwrap(
    path: Path, payload: Any, container: Container, expected: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, int]]:
    """The state by plain names, without what `container.ignored` names, and how much that was."""
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path}: expected a dictionary, found {type(payload).__name__}")
    named: dict[str, Any] = {}
    ignored: Counter[str] = Counter()
    for key, value in container.named(expected, _state(path, payload, container)).items():
        # A name without the prefix keeps its own form, which no network has: it is listed as unexpected.
        text = key if isinstance(key, str) else repr(key)
        name = (
            text.removeprefix(container.prefix)
            if text.startswith(container.prefix)
            else f"(no prefix) {text}"
        )
        pattern = next((pattern for pattern in container.ignored if fnmatchcase(name, pattern)), None)
        if pattern is None or name in expected:
            named[name] = value
        else:
            ignored[pattern] += 1
    return named, dict(ignored)


def _state(path: Path, payload: dict[Any, Any], container: Container) -> dict[Any, Any]:
    """The state in a file's payload: under the first key that is there, or all of it."""
    keys = (container.key, *container.others)
    key = next((key for key in keys if key is None or key in payload), container.key)
    state = payload if key is None else payload.get(key)
    if not isinstance(state, dict):
        wanted = " or ".join(f"'{key}'" for key in keys if key is not None)
        found = ", ".join(sorted(repr(key)[:60] for key in payload)[:_LISTED]) or "nothing"
        raise CheckpointError(f"{path}: expected a state under the key {wanted}, found keys {found}")
    return state


def _fitting(
    name: str, named: Mapping[str, Any], like: torch.Tensor, problems: _Problems
) -> torch.Tensor | None:
    if name not in named:
        problems.add("missing", name)
        return None
    value = named[name]
    if not isinstance(value, torch.Tensor):
        problems.add("not a tensor", f"{name} ({type(value).__name__})")
    elif value.shape != like.shape:
        problems.add("misshaped", f"{name} (found {tuple(value.shape)}, expected {tuple(like.shape)})")
    elif value.dtype != like.dtype or value.layout != torch.strided or value.device.type != "cpu":
        found = f"{value.dtype} {value.layout} on {value.device}"
        problems.add("of another type", f"{name} (found {found}, expected {like.dtype})")
    elif not torch.isfinite(value).all():
        problems.add("with NaN or infinity", name)
    else:
        return value.detach()
    return None
