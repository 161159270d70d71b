"""S3FD, RetinaFace and FAN-4 against the public layouts and goldens, in both forms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_data import golden, layout
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dubstream.engines import face_specs
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import UsageError
from dubstream.engines.specs import spec_of as any_spec
from dubstream.export.face_pictures import DetectorPictures, FANPictures
from dubstream.export.fidelity import fidelity_cases, judge
from dubstream.export.networks import NETWORKS, fan_deploy
from dubstream.export.networks.rewrite import Rewriter
from dubstream.export.onnx_export import check_onnx, export_onnx, onnx_runner, torch_runner
from dubstream.export.recipes import RECIPES, recipe_named
from dubstream.export.seeded import AUXILIARY, seeded_state
from dubstream.kernels.detection import decode_boxes, decode_points, decode_s3fd, retinaface_priors

RAW = {"s3fd": "maps", "retinaface": "regressions", "fan4": "forward"}
"""The method whose outputs the golden files hold."""


@dataclass
class Forms:
    name: str
    plain: nn.Module
    deployable: nn.Module

    def of(self, form: str) -> nn.Module:
        return self.plain if form == "plain" else self.deployable

    def raw(self, form: str, image: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            got = getattr(self.of(form), RAW[self.name])(image)
        return (got,) if isinstance(got, Tensor) else tuple(got)


@pytest.fixture(scope="module", params=list(RAW))
def forms(request: pytest.FixtureRequest) -> Forms:
    factory = NETWORKS[request.param]
    plain = factory.build()
    plain.load_state_dict(seeded_state(plain, factory.seed_rule))
    return Forms(request.param, plain, factory.deployable(plain))


def spec_of(name: str, height: int, width: int) -> NetworkSpec:
    sized = {"s3fd": face_specs.s3fd_spec, "retinaface": face_specs.retinaface_spec}
    return sized[name](height, width) if name in sized else face_specs.FAN4


def wanted(name: str, case: str) -> list[Tensor]:
    facts = golden(name)
    return [facts[key] for key in facts if key.startswith(f"{case}out.") and not key.endswith("argmax")]


def test_keys_shapes_and_their_order_are_those_of_the_public_checkpoint(forms: Forms) -> None:
    facts = layout(forms.name)
    state = {name: list(tensor.shape) for name, tensor in forms.plain.state_dict().items()}
    assert list(state.items()) == list(facts["parameters"].items())
    assert {name for name, _ in forms.plain.named_buffers()} == set(facts["buffers"])


@pytest.mark.parametrize("form", ["plain", "deployable"])
def test_golden(forms: Forms, form: str) -> None:
    got = forms.raw(form, golden(forms.name)["in.image"])
    for made, want in zip(got, wanted(forms.name, ""), strict=True):
        assert made.shape == want.shape
        assert float((made - want).abs().max()) < 1e-4 * float(want.std())


@pytest.mark.parametrize("forms", ["s3fd", "retinaface"], indirect=True)
@pytest.mark.parametrize("form", ["plain", "deployable"])
def test_golden_of_a_size_off_every_multiple(forms: Forms, form: str) -> None:
    image = golden(forms.name)["odd.in.image_odd"][:1]
    for made, want in zip(forms.raw(form, image), wanted(forms.name, "odd."), strict=True):
        assert made.shape == want[:1].shape
        assert float((made - want[:1]).abs().max()) < 1e-4 * float(want.std())


@pytest.mark.parametrize("forms", ["s3fd"], indirect=True)
@pytest.mark.parametrize(("case", "height", "width"), [("", 256, 256), ("odd.", 203, 317)])
def test_s3fd_decodes_as_the_reference_does(forms: Forms, case: str, height: int, width: int) -> None:
    maps = wanted("s3fd", case)
    boxes, scores = decode_s3fd([each[0].numpy() for each in maps], height, width)
    with torch.inference_mode():
        found = [
            torch.cat(
                [maps[at][:, :1].repeat(1, 3 if at == 0 else 1, 1, 1), maps[at][:, 1:], maps[at + 1]], 1
            )
            for at in range(0, len(maps), 2)
        ]
        got = forms.deployable.get_submodule("decode")(found)
    assert got[0].shape[1:] == spec_of("s3fd", height, width).output("boxes").shape[1:]
    assert np.abs(got[0][0].numpy() - boxes).max() < 1e-3
    assert np.abs(got[1][0].numpy() - scores).max() < 1e-5


@pytest.mark.parametrize("forms", ["retinaface"], indirect=True)
@pytest.mark.parametrize(("case", "height", "width"), [("", 256, 256), ("odd.", 203, 317)])
def test_retinaface_decodes_as_the_reference_does(forms: Forms, case: str, height: int, width: int) -> None:
    image = golden("retinaface")["odd.in.image_odd" if case else "in.image"]
    changes, probabilities, shifts = (each[0].numpy() for each in wanted("retinaface", case))
    priors = retinaface_priors(height, width)
    outputs = torch_runner(forms.plain, spec_of("retinaface", height, width))({"image": image.numpy()})
    assert np.abs(outputs["boxes"][0] - decode_boxes(changes, *priors)).max() < 1e-3
    assert np.abs(outputs["points"][0] - decode_points(shifts, *priors)).max() < 1e-3
    assert np.abs(outputs["scores"][0] - probabilities[:, 1]).max() < 1e-5


def test_both_forms_fit_the_spec_and_agree_within_its_tolerance(forms: Forms) -> None:
    size = (256, 256) if forms.name == "fan4" else (64, 96)
    spec = spec_of(forms.name, *size)
    inputs = {"image": np.concatenate([case.inputs["image"][:1] for case in fidelity_cases(spec)])}
    plain, deployed = (torch_runner(forms.of(form), spec)(inputs) for form in ("plain", "deployable"))
    for tensor in spec.outputs:
        tensor.check(deployed[tensor.name])
        limit = spec.tolerances[tensor.name].max_abs
        assert np.abs(plain[tensor.name] - deployed[tensor.name]).max() < limit / 4


def test_deployable_wants_no_gradients_and_shares_nothing(forms: Forms) -> None:
    assert not forms.deployable.training
    assert not any(parameter.requires_grad for parameter in forms.deployable.parameters())
    taken = {tensor.data_ptr() for tensor in forms.plain.state_dict().values() if tensor.numel()}
    assert taken.isdisjoint(tensor.data_ptr() for tensor in forms.deployable.state_dict().values())


@pytest.mark.parametrize("forms", ["fan4"], indirect=True)
def test_fan_finds_the_golden_peaks(forms: Forms) -> None:
    heatmaps = forms.raw("deployable", golden("fan4")["in.image"])[0]
    assert torch.equal(heatmaps.flatten(2).argmax(2).int(), golden("fan4")["out.argmax"])


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, size) for name in ("s3fd", "retinaface") for size in ("256x256", "1280x720", "1920x1080")),
        ("fan4", "256x256"),
    ],
)
def test_work_is_what_layout_and_spec_say(name: str, size: str) -> None:
    width, height = map(int, size.split("x"))
    with torch.device("meta"):
        plain = NETWORKS[name].plain().eval().requires_grad_(False)
    spec = spec_of(name, height, width)
    image = torch.empty(spec.inputs[0].concrete(1), device="meta")
    work = [_gmacs(network, image) for network in (plain, NETWORKS[name].deployable(plain).to("meta"))]
    assert work[0] == pytest.approx(layout(name)["gmacs_by_size"][size], rel=1e-3)
    assert work[1] == pytest.approx(spec.gmacs, rel=4e-3)


def _gmacs(network: nn.Module, image: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(image)
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("forms", ["retinaface"], indirect=True)
def test_the_exported_file_computes_the_same_at_every_batch(forms: Forms, tmp_path: Path) -> None:
    spec = face_specs.retinaface_spec(64, 96)
    path = tmp_path / "retinaface.onnx"
    export_onnx(forms.deployable, spec, path)
    check_onnx(path, spec)
    cases = fidelity_cases(spec)
    run = torch_runner(forms.plain, spec)
    rows = judge(spec, cases, [run(case.inputs) for case in cases], onnx_runner(path, spec, 1))
    assert {row.case for row in rows} == {"uniform/1", "uniform/2", "uniform/3", "ends/1"}


def test_specs_know_the_published_numbers_of_priors() -> None:
    counts = {
        size: face_specs.retinaface_spec(*size).output("scores").shape[1]
        for size in ((256, 256), (720, 1280), (1080, 1920))
    }
    assert counts == {(256, 256): 2688, (720, 1280): 37840, (1080, 1920): 85200}


def test_a_specs_name_tells_the_size_unless_it_is_the_usual_one() -> None:
    assert (face_specs.S3FD.name, face_specs.RETINAFACE.name) == ("s3fd", "retinaface")
    assert face_specs.s3fd_spec(720, 1280).name == "s3fd_1280x720"


@pytest.mark.parametrize("spec", [face_specs.s3fd_spec, face_specs.retinaface_spec])
def test_pictures_too_small_for_a_detector_are_refused(spec: type) -> None:
    with pytest.raises(UsageError, match="31"):
        spec(64, 31)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_detectors_see_blue_first_minus_the_means(dtype: torch.dtype) -> None:
    picture = np.random.default_rng(4).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    seen = DetectorPictures(nn.Identity(), dtype)(torch.from_numpy(picture))
    assert seen.dtype == dtype
    want = picture.transpose(0, 3, 1, 2) - np.array([104, 117, 123])[:, None, None]
    assert np.array_equal(seen.float().numpy(), want)  # differences of bytes are exact in every type


def test_fan_sees_red_first_and_gives_half_floats() -> None:
    picture = np.random.default_rng(5).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    network = FANPictures(nn.Identity(), torch.float32)
    levels = network.levels(torch.from_numpy(picture))
    assert np.array_equal(levels.numpy(), picture[..., ::-1].transpose(0, 3, 1, 2) / np.float32(255))
    assert torch.equal(network(torch.from_numpy(picture)), levels.half())


def test_small_variances_survive_half_precision() -> None:
    norm = nn.BatchNorm2d(128).eval()
    norm.load_state_dict(seeded_state(norm, AUXILIARY))
    norm.get_buffer("running_var").fill_(1e-9)  # a dead channel; float16 holds nothing below 6e-8
    fixed = fan_deploy.fixed_norm(norm, Rewriter({}))
    x = 1e-3 * torch.randn(1, 128, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        want, got = norm(x), fixed.eval().half()(x.half()).float()
    assert float((got - want).abs().max()) < 2e-3 * float(want.abs().max())


def test_detectors_of_other_sizes_are_known_by_their_names() -> None:
    for name in ("s3fd_96x64", "retinaface_1280x720"):
        recipe = recipe_named(name)
        assert recipe.spec == any_spec(name)
        assert (recipe.spec.name, dict(recipe.halves)) == (name, {})
        assert recipe.factory is RECIPES[name.partition("_")[0]].factory
    assert any_spec("s3fd_96x64").inputs[0].shape[2:] == (64, 96)
    assert recipe_named("fan4") is RECIPES["fan4"]


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [
        ("s3fd_640x384", "fp32", "called 's3fd'"),
        ("s3fd_16x64", "fp32", "expected sides from 32"),
        ("s3fd_0x64", "fp32", "unknown network"),
        ("gpen_256x256", "fp32", "unknown network"),
        ("s3fd_1280x720", "fp16", "expected fp32"),
    ],
)
def test_sizes_that_no_detector_has_are_refused(name: str, precision: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        any_spec(name, precision)
