"""Seeded damage to files: the kinds that copies, disks and attackers do."""

from __future__ import annotations

import numpy as np

KINDS = ("truncate", "flip", "zero page", "header noise", "insert", "duplicate")


def mutated(data: bytes, seed: int) -> tuple[str, bytes]:
    """(kind, damaged copy) of a file's bytes; equal seeds, equal damage."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    broken = bytearray(data)
    at = int(rng.integers(0, len(data)))
    if kind == "truncate":
        return kind, bytes(broken[: max(at, 1)])
    if kind == "flip":
        for place in rng.integers(0, len(data), int(rng.integers(1, 40))):
            broken[place] ^= 1 << int(rng.integers(0, 8))
    elif kind == "zero page":
        length = min(4096, len(data) // 10)
        broken[at : at + length] = bytes(len(broken[at : at + length]))
    elif kind == "header noise":
        for place in rng.integers(0, min(1024, len(data)), 12):
            broken[place] = int(rng.integers(0, 256))
    elif kind == "insert":
        broken[at:at] = rng.bytes(int(rng.integers(1, 300)))
    else:
        broken[at:at] = broken[at : at + 2000]
    return kind, bytes(broken)
