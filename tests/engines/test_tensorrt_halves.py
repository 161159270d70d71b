"""The half-precision networks through TensorRT's real parser and builder: types, islands, casts.

Of the face networks around the four, the two cheapest; L-Net and D-Net in fp16 alone, as their graphs in bf16
cost minutes. All of them, in a quarter of an hour on two cores:
`DUBSTREAM_EVERY_NETWORK=1 python -m pytest tests/engines/test_tensorrt_halves.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
from real_artifacts import every_network, half_artifact, half_graph
from trt_checker.checker import Built, Checker

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.specs import CORE

LAUNCHES = {  # (launches with a cast fused in, launches that only cast), counted on the checker's plans
    ("dnet", "fp16"): (47, 0),
    ("lnet", "fp16"): (89, 0),
    ("enet", "fp16"): (9, 0),
    ("recon", "fp16"): (2, 0),
    ("dnet", "bf16"): (50, 3),
    ("lnet", "bf16"): (95, 4),
    ("enet", "bf16"): (33, 18),
    ("recon", "bf16"): (4, 1),
    ("s3fd", "fp16"): (10, 0),
    ("retinaface", "fp16"): (2, 0),
    ("fan4", "fp16"): (1, 0),
    ("gfpgan", "fp16"): (37, 0),
    ("gpen", "fp16"): (34, 0),
    ("parsenet", "fp16"): (5, 0),
    ("ganimation", "fp16"): (3, 0),
    ("s3fd", "bf16"): (17, 5),
    ("retinaface", "bf16"): (4, 1),
    ("fan4", "bf16"): (36, 5),
    ("gfpgan", "bf16"): (65, 21),
    ("gpen", "bf16"): (34, 0),
    ("parsenet", "bf16"): (5, 0),
    ("ganimation", "bf16"): (3, 0),
}
QUICK = (*((name, "fp16") for name in (*CORE, "s3fd", "ganimation")), ("enet", "bf16"), ("recon", "bf16"))
CASES = [case for case in LAUNCHES if every_network() or case in QUICK]
PUBLISHED = {*((name, "fp16") for name in ("dnet", "lnet", "enet", "recon")), ("recon", "bf16")}
ISLANDS = {
    "dnet": r"core\.mapping(\..*)?|core\.warp|core\.warping\.flow_out\.0|core\.editing\..*\.model\.1",
    "lnet": r"core\.(encoder|decoder)\..*\.model\.1",
    "enet": r"core\.steps\.\d\.modulation",
    "recon": r"core\.heads",
    "s3fd": r"core\.(norm|decode)",
    "retinaface": r"core\.decode",
    "gfpgan": r"core\.decoder\.(first|convs\.\d+)\.modulation",
    "gpen": r"core\.generator\.(unit(\.unit)?|convs\.\d+\.convolved\.modulation)",
    "parsenet": r"core\.body(\..*)?|core\.masks(\.sums)?",
}
"""Modules that compute in float32, written down here a second time."""

TRANSPOSED = r"core\.warping\.hourglass\.decoder\.decoder\d\.conv_[1s](\.conv)?"
"""TensorRT's compiler has no bfloat16 for these."""

SQUASH = r"core\.(editing\.)?decoder\.final\.model\.1"  # the last activation sits where norms sit elsewhere
HALF = {"fp16": "HALF", "bf16": "BF16"}
FLOATS = {"FLOAT", *HALF.values()}


Case = tuple[str, str, Path, Built]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(checker: Checker, request: pytest.FixtureRequest) -> Case:
    name, precision = request.param
    model, spec = _model(name, precision)
    return name, precision, model, checker.build(model, spec)


def _model(name: str, precision: str) -> tuple[Path, NetworkSpec]:
    """With its comparison where that takes no minutes: the core in fp16 and ReconNet in bf16."""
    if (name, precision) in PUBLISHED:
        artifact = half_artifact(name, precision)
        return artifact.path, artifact.spec
    return half_graph(name, precision)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_parses_fits_its_spec_and_builds_with_the_known_number_of_casts(case: Case) -> None:
    name, precision, _, built = case
    assert built.error is None  # names, types, axes and the profile are the builder's own checks
    assert (built.census.casts, built.census.pure_casts) == LAUNCHES[name, precision]


@pytest.mark.slow
def test_islands_are_float_and_everything_else_is_half(case: Case) -> None:
    name, precision, model, built = case
    module_of = _modules(model)
    wrong, floats = [], 0
    for layer in built.report["layers"]:
        kinds = FLOATS.intersection(layer["dtypes"])
        if layer["name"] not in module_of or not kinds or layer["type"] in ("CAST", "CONSTANT"):
            continue
        module = module_of[layer["name"]]
        if name == "parsenet" and not module:
            continue  # probabilities leave the island as they are, to become bytes
        island = name in ISLANDS and re.fullmatch(ISLANDS[name], module) and not re.fullmatch(SQUASH, module)
        island = island or (precision == "bf16" and re.fullmatch(TRANSPOSED, module))
        floats += bool(island)
        if kinds != {"FLOAT" if island else HALF[precision]}:
            wrong.append(f"{layer['name']} in {module}: {kinds}")
    assert wrong == []
    assert bool(floats) == (name in ISLANDS)


def _modules(model: Path) -> dict[str, str]:
    """Node name to the dotted path of its PyTorch module."""
    found = {}
    for node in onnx.load(str(model)).graph.node:
        for entry in node.metadata_props:  # a few nodes of the exporter's own making have none
            names = [name for name in re.findall(r"'([^']*)'", entry.value) if name]
            found[node.name] = names[-2] if len(names) > 1 else ""
    return found
