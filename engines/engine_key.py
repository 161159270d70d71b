"""The identity of a TensorRT plan: everything that would make it wrong, or slower, elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dubstream.engines.facts import canonical, digest_facts

SCHEMA = 1
"""Raised when plans of an earlier dubstream must not be used any more."""


@dataclass(frozen=True)
class Environment:
    """The part of a plan's identity that the machine decides.

    Attributes:
        tensorrt: TensorRT's version, four parts.
        parser: version number of its ONNX parser.
        cuda: CUDA runtime, "major.minor".
        driver: major version of the driver.
        device: name of the GPU.
        compute_capability: e.g. "9.0".
        multiprocessors: streaming multiprocessors of the GPU.
        platform: operating system and architecture.
        plugins: (name, SHA-256) of plugin libraries a plan may call.
    """

    tensorrt: str
    parser: str
    cuda: str
    driver: str
    device: str
    compute_capability: str
    multiprocessors: int
    platform: str
    plugins: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class EngineKey:
    """Identity of one plan.

    Attributes:
        network: short name of the network, for people.
        onnx_sha256: digest of the artifact, external data included.
        recipe: name and version of its precision recipe, e.g. "fp16 2".
        options: builder settings and batch profiles, `BuildOptions.as_key`.
        environment: versions and device.
        schema: `SCHEMA`.
    """

    network: str
    onnx_sha256: str
    recipe: str
    options: Mapping[str, Any]
    environment: Environment
    schema: int = field(default=SCHEMA)

    def as_json(self) -> dict[str, Any]:
        """A plain form that survives JSON unchanged; equal keys give equal dictionaries."""
        plain = {**asdict(self), "options": dict(self.options)}
        copy: dict[str, Any] = json.loads(canonical(plain))
        return copy

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal: the plan's name in the store."""
        return digest_facts(self.as_json())
