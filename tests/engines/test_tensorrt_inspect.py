"""The census of models and plans."""

from __future__ import annotations

from pathlib import Path

import pytest
from trt_checker import toys

from dubstream.engines.errors import ArtifactError
from dubstream.engines.inspect_model import Cast, inspect_model
from dubstream.engines.inspect_plan import inspect_plan

LISTING = """binary\xff
main {
 label bb1:
  shape_call={ name="__mye480_0" stream=0 }
  function={ name=__myl_CastGridCast fqn=__myl_CastGridCast_0x1 args={ "image" } sub={ name=inner } }
  corrltn={ name="conv_U4" output={"y"} }
  function={ name=__myl_CastMove_12 }
  function={ name=__myl_Cast }
  wait={ name=ev }
  corrltn={ name="conv_U5" output={"y"} }

}
tail"""


def test_a_plan_tells_its_kernels() -> None:
    census = inspect_plan(LISTING.encode("latin-1"))
    assert [name for _, name in census.kernels] == [
        "__myl_CastGridCast",
        "conv_U4",
        "__myl_CastMove_12",
        "__myl_Cast",
        "conv_U5",
    ]
    assert (census.casts, census.pure_casts, census.nbytes) == (3, 2, len(LISTING))
    assert census.names() == {"conv": 2, "__myl_CastGridCast": 1, "__myl_CastMove": 1, "__myl_Cast": 1}


def test_a_plan_of_another_format_has_an_empty_census() -> None:
    assert inspect_plan(b"\x00" * 100).kernels == ()


def test_a_half_precision_model_shows_its_casts_and_islands(tmp_path: Path) -> None:
    census = inspect_model(toys.modulated(tmp_path, "float16")[0])
    assert census.casts == (Cast("style32", "float16", "float32"), Cast("inverse16", "float32", "float16"))
    assert census.islands == ({"Mul": 1, "MatMul": 1, "Add": 1, "Sqrt": 1, "Reciprocal": 1},)
    assert census.operators["Conv", "float16"] == 1
    assert census.operators["MatMul", "float32"] == 1
    assert census.dtypes() == {"float32": 6, "float16": 6}
    assert census.weights["float16"] == 8 * 8 * 3 * 3 * 2
    assert census.tensors[0] == "image: float16 (batch, 8, 16, 16)"


def test_a_float32_model_has_neither(tmp_path: Path) -> None:
    census = inspect_model(toys.modulated(tmp_path, "float32")[0])
    assert (census.casts, census.islands, census.opset) == ((), (), 20)


def test_two_islands_are_two(tmp_path: Path) -> None:
    toy = toys.Toy({"image": ("float16", (4,))}, "float16")
    for index in range(2):
        wide = toy.cast(f"wide{index}", "image", "float32")
        toy.cast(f"narrow{index}", toy.node(f"root{index}", "Sqrt", wide), "float16")
    toy.node("sum", "Add", "narrow0", "narrow1")
    census = inspect_model(toy.save(tmp_path, "two", {"sum": ("float16", (4,))})[0])
    assert census.islands == ({"Sqrt": 1}, {"Sqrt": 1})
    assert len(census.casts) == 4


@pytest.mark.parametrize("content", [b"", b"\xff" * 100])
def test_noise_is_an_artifact_error(content: bytes) -> None:
    with pytest.raises(ArtifactError, match="ONNX model"):
        inspect_model(content)
