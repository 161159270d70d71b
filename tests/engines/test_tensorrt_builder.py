"""The builder on TensorRT's real parser and builder, without a GPU (see `trt_checker`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from trt_checker import toys
from trt_checker.checker import Built, Checker

from dubstream.engines.inspect_model import inspect_model

MODELS = {
    "plain": toys.plain,
    "fourier_float32": lambda folder: toys.fourier(folder, "float32"),
    "fourier_float16": lambda folder: toys.fourier(folder, "float16"),
    "warp_float32": lambda folder: toys.warp(folder, "float32"),
    "warp_float16": lambda folder: toys.warp(folder, "float16"),
    "modulated_float32": lambda folder: toys.modulated(folder, "float32"),
    "modulated_float16": lambda folder: toys.modulated(folder, "float16"),
    "pictures": toys.pictures,
}
CASTS = {  # (launches with a cast fused in, launches that only cast), counted on the checker's plans
    "fourier_float16": (0, 0),
    "warp_float16": (2, 0),
    "modulated_float16": (2, 0),
    "pictures": (2, 0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toys")


@pytest.fixture(scope="module")
def built(checker: Checker, folder: Path) -> dict[str, Built]:
    return checker.build_all({name: make(folder) for name, make in MODELS.items()})


@pytest.mark.parametrize("name", MODELS)
def test_parses_fits_its_spec_and_builds_with_a_dynamic_batch(built: dict[str, Built], name: str) -> None:
    assert built[name].error is None
    assert built[name].plan


@pytest.mark.parametrize("name", CASTS)
def test_half_precision_plans_have_no_cast_storm(built: dict[str, Built], name: str) -> None:
    census = built[name].census
    assert (census.casts, census.pure_casts) == CASTS[name]


@pytest.mark.parametrize("name", [name for name in MODELS if name.endswith("float32")])
def test_float32_plans_have_no_casts(built: dict[str, Built], name: str) -> None:
    assert built[name].census.casts == 0


def test_islands_are_float_and_the_rest_is_half(built: dict[str, Built]) -> None:
    warp, modulated = built["warp_float16"], built["modulated_float16"]
    assert (warp.dtypes("grid"), warp.dtypes("sampled16"), warp.dtypes("motion")) == (
        {"FLOAT"},
        {"HALF"},
        {"HALF"},
    )
    assert warp.types()["GRID_SAMPLE"] == ["FLOAT"]
    assert warp.types()["NORMALIZATION"] == ["HALF"]
    assert modulated.types()["MATRIX_MULTIPLY"] == ["FLOAT"]
    assert modulated.types()["UNARY"] == ["FLOAT", "FLOAT"]
    assert modulated.types()["CONVOLUTION"] == ["HALF"]


def test_uint8_pictures_are_converted_in_one_kernel_each_side(built: dict[str, Built]) -> None:
    kernels = [name for _, name in built["pictures"].census.kernels]
    assert len(kernels) == 3
    assert "Cast" in kernels[0]
    assert "Cast" in kernels[-1]


def test_plans_are_deterministic_here(checker: Checker, folder: Path, built: dict[str, Built]) -> None:
    assert checker.build(*toys.warp(folder, "float16")).plan == built["warp_float16"].plan


def test_progress_counts_up_to_the_end(built: dict[str, Built]) -> None:
    steps = built["plain"].report["steps"]
    assert steps[0][1] == 0
    assert steps[-1][1] == steps[-1][2]
    assert all(0 <= done <= total for _, done, total in steps)


def test_the_parsers_own_words_are_in_the_error(checker: Checker, folder: Path) -> None:
    result = checker.build(*toys.mixed_grid(folder))
    assert result.error is not None
    assert "ArtifactError" in result.error
    assert "'sampled' (GridSample)" in result.error
    assert "must be of same type" in result.error
    assert "\n" not in result.error


def test_a_file_that_is_no_model_is_an_artifact_error(checker: Checker, folder: Path) -> None:
    _, spec = toys.plain(folder)
    (folder / "noise.onnx").write_bytes(b"\xff" * 4096)
    result = checker.build(folder / "noise.onnx", spec)
    assert "ArtifactError" in str(result.error)
    assert "Failed to parse the ONNX model" in str(result.error)


def test_a_missing_file_is_an_artifact_error(checker: Checker, folder: Path) -> None:
    _, spec = toys.plain(folder)
    assert "ArtifactError: cannot read" in str(checker.build(folder / "absent.onnx", spec).error)


def test_a_batch_folded_into_groups_is_refused(checker: Checker, folder: Path) -> None:
    assert "ArtifactError" in str(checker.build(*toys.grouped(folder)).error)


def test_every_difference_from_the_spec_is_named(checker: Checker, folder: Path) -> None:
    model, spec = toys.plain(folder)
    image, picture = spec.inputs[0], spec.outputs[0]
    wrong = replace(
        spec,
        inputs=(replace(image, dtype="float16"),),
        outputs=(replace(picture, name="other"),),
        tolerances={"other": spec.tolerances["picture"]},
    )
    error = str(checker.build(model, wrong).error)
    assert "input 'image' is float32 (-1, 3, 16, 16), expected float16 (-1, 3, 16, 16)" in error
    assert "output 'other' is missing" in error
    assert "output 'picture' is not in the spec" in error


def test_a_static_batch_does_not_fit(checker: Checker, folder: Path) -> None:
    toy = toys.Toy({"image": ("float32", (3, 16, 16))})
    toy.conv("picture", "image", 3, 4)
    error = checker.build(*toy.save(folder, "static", {"picture": ("float32", (4, 16, 16))}, axis=2)).error
    assert "input 'image' is float32 (2, 3, 16, 16), expected float32 (-1, 3, 16, 16)" in str(error)


def test_a_network_without_a_kernel_is_an_internal_error_with_the_log(checker: Checker, folder: Path) -> None:
    error = str(checker.build(*toys.attention(folder)).error)
    assert "InternalError" in error
    assert "built no plan of attention: " in error
    assert "log is empty" not in error


def test_ctrl_c_stops_the_build_at_its_next_step(
    checker: Checker, folder: Path, built: dict[str, Built]
) -> None:
    result = checker.build(*toys.warp(folder, "float32"), interrupt_at=5)
    assert "KeyboardInterrupt" in str(result.error)
    assert len(result.report["steps"]) < len(built["warp_float32"].report["steps"]) / 2


def test_an_exception_of_the_callback_cancels_and_comes_back(checker: Checker, folder: Path) -> None:
    assert checker.build(*toys.plain(folder), fail_at=5).error == "ValueError: the callback failed"


def test_the_file_of_timings_outlives_builds_and_damage(checker: Checker, folder: Path) -> None:
    """Of the file only: without a GPU nothing is timed, so it has no entries whose reuse could be seen."""
    options = {"timing_cache": str(folder / "device.timing")}
    first = checker.build(*toys.plain(folder), options=options)
    saved = (folder / "device.timing").read_bytes()
    assert len(saved) > 32
    again = checker.build(*toys.plain(folder), options=options)
    (folder / "device.timing").write_bytes(saved[:-1])
    damaged = checker.build(*toys.plain(folder), options=options)
    assert first.plan == again.plan == damaged.plan
    assert (folder / "device.timing").read_bytes() == saved


@pytest.mark.parametrize(
    "options",
    [{"tf32": True}, {"optimisation_level": 0}, {"aux_streams": 0}, {"max_batch": 2, "optimum_batch": 2}],
)
def test_builder_options_are_accepted(checker: Checker, folder: Path, options: dict[str, object]) -> None:
    assert checker.build(*toys.warp(folder, "float16"), options=options).error is None


def test_the_census_of_the_model_agrees_with_the_parser(folder: Path, built: dict[str, Built]) -> None:
    census = inspect_model(toys.warp(folder, "float16")[0])
    assert census.islands == ({"Add": 1, "GridSample": 1},)
    assert len(census.casts) == len(built["warp_float16"].types()["CAST"]) == 3
