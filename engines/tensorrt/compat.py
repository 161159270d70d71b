"""Everything in which TensorRT 10.13+ and 11.x differ for us, in one place.

Written against the references of both. The suite runs the real 11.4 bindings (over a CPU builder); 10.x
cannot run there, so its side is covered with stand-in modules only.
"""

from __future__ import annotations

import importlib
import json
import re
from typing import Any

from dubstream.engines.errors import DeviceError, UsageError

OLDEST = (10, 13)
"""Below it: other strategies for context memory and no uint8 graph outputs worth trusting."""

BEYOND = (12, 0)
"""The first version nobody has tried."""

_INSTALL = "pip install 'dubstream[gpu]', which brings tensorrt>=10.13,<12, or choose --backend onnxruntime"


def load() -> Any:
    """The ``tensorrt`` module. DeviceError when it, or a library of it, is missing or of a wrong version."""
    try:
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise DeviceError(f"TensorRT cannot be imported: {error}", hint=_INSTALL) from error
    if not OLDEST <= version(trt) < BEYOND:
        raise DeviceError(
            f"TensorRT {trt.__version__} is installed, "
            f"expected {OLDEST[0]}.{OLDEST[1]} or later, below {BEYOND[0]}",
            hint=_INSTALL,
        )
    return trt


def version(trt: Any) -> tuple[int, ...]:
    """The leading numbers of ``trt.__version__``: (11, 4, 0, 106) for "11.4.0.106"."""
    return tuple(int(part) for part in re.findall(r"\d+", trt.__version__)[:4])


def network_flags(trt: Any) -> int:
    """Flags of `Builder.create_network` that make element types come from the graph alone.

    10.x infers types unless STRONGLY_TYPED is given (and EXPLICIT_BATCH is its default); 11.x always is
    strongly typed and keeps the flag as a no-op, which a later version may drop.
    """
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    if flag is None and version(trt) < (11,):
        raise DeviceError(f"TensorRT {trt.__version__} has no strongly typed networks", hint=_INSTALL)
    return 0 if flag is None else 1 << int(flag)


def compatibility_level(trt: Any, name: str) -> Any:
    """The `HardwareCompatibilityLevel` called `name`; UsageError where this version has none."""
    level = getattr(trt.HardwareCompatibilityLevel, name.upper(), None)
    if level is None:
        raise UsageError(
            f"TensorRT {trt.__version__} does not know hardware compatibility '{name}'",
            hint="use --hardware-compatibility none or ampere_plus",
        )
    return level


def device_memory_bytes(engine: Any) -> int:
    """Scratch bytes the engine's largest profile needs. 11.x dropped 10.x's `device_memory_size`."""
    return int(engine.device_memory_size_v2)


def inspector_layers(information: str) -> tuple[list[Any], list[Any]]:
    """(layers, inputs and outputs) of `get_engine_information(JSON)`.

    10.x calls the second list "Bindings", 11.x "I/O Tensors".
    """
    parsed = json.loads(information)
    return parsed.get("Layers", []), parsed.get("I/O Tensors", parsed.get("Bindings", []))
