"""GFPGAN, GPEN, ParseNet and GANimation against the public layouts and golden outputs, in both forms."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from real_artifacts import every_network
from reference_data import filled, golden, layout
from tolerances import equal
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import CheckpointError
from dubstream.engines.face_specs import GANIMATION, GFPGAN, GPEN, PARSENET
from dubstream.export.face_pictures import GANimationPictures, ParseNetPictures, RestorerPictures
from dubstream.export.fidelity import fidelity_cases, judge
from dubstream.export.networks import (
    NETWORKS,
    enet,
    ganimation_deploy,
    gfpgan,
    gfpgan_deploy,
    gpen,
    gpen_deploy,
    parsenet,
    parsenet_deploy,
)
from dubstream.export.networks.rewrite import Rewriter
from dubstream.export.networks.styled_blocks import DoubledConv, SpreadConv
from dubstream.export.onnx_export import check_onnx, export_onnx, onnx_runner, torch_runner
from dubstream.export.seeded import seeded_input, seeded_state

SPECS: dict[str, NetworkSpec] = {spec.name: spec for spec in (GFPGAN, GPEN, PARSENET, GANIMATION)}


@dataclass
class Forms:
    """Both forms of a network, what each makes of the golden inputs, and its GMAC."""

    name: str
    nets: dict[str, nn.Module]
    made: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    gmacs: dict[str, float] = field(default_factory=dict)

    def outputs(self, form: str) -> dict[str, Tensor]:
        if form not in self.made:
            net = self.nets[form]
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                self.made[form] = RAW[self.name](net, *golden_inputs(self.name))
            self.gmacs[form] = counter.get_total_flops() / 2e9
        return self.made[form]


@pytest.fixture(scope="module", params=list(SPECS))
def forms(request: pytest.FixtureRequest) -> Forms:
    factory = NETWORKS[request.param]
    plain = factory.build()
    plain.load_state_dict(seeded_state(plain, factory.seed_rule), assign=True)
    plain.requires_grad_(False)
    return Forms(request.param, {"plain": plain, "deployable": factory.deployable(plain)})


def golden_inputs(name: str) -> tuple[Tensor, ...]:
    facts = layout(name)["golden"]["inputs"]
    return tuple(seeded_input(name, key, fact["shape"], *fact["range"]) for key, fact in facts.items())


def _restored(net: nn.Module, image: Tensor) -> dict[str, Tensor]:
    return {"image": net(image)}


def _parsed(net: nn.Module, image: Tensor) -> dict[str, Tensor]:
    logits = net.logits(image)  # type: ignore[operator]
    if isinstance(logits, tuple):  # the plain form reconstructs the picture, too
        return {"mask_logits": logits[0], "image": logits[1]}
    masks, classes = net.masks(logits), logits.argmax(dim=1)  # type: ignore[operator]
    return {"mask_logits": logits, "masks": masks, "classes": classes}


def _edited(net: nn.Module, image: Tensor, aus: Tensor) -> dict[str, Tensor]:
    color, attention, fused = net(image, aus)
    return {"color": color, "attention": attention, "fused": fused}


RAW = {"gfpgan": _restored, "gpen": _restored, "parsenet": _parsed, "ganimation": _edited}
GMACS = {"gfpgan": (197.77, 144.21), "gpen": (138.11, 139.22), "parsenet": (234.50, 177.69)}
GMACS["ganimation"] = (10.63, 9.83)
COSTLY = ("gfpgan", "parsenet")
"""Of these the suite runs what is exported; their plain forms with `DUBSTREAM_EVERY_NETWORK=1` only."""

GOLDEN = [
    (name, form)
    for name in SPECS
    for form in ("plain", "deployable")
    if form == "deployable" or name not in COSTLY or every_network()
]


def same(name: str, key: str, got: Tensor) -> None:
    """Within 1e-4 of the whole golden output's spread; the file holds every k-th row and column."""
    facts = golden(name)
    want = facts[f"out.{key}"]
    stride = got.shape[-1] // want.shape[-1]
    got = got[..., ::stride, ::stride]
    assert got.shape == want.shape
    assert float((got - want).abs().max()) < 1e-4 * float(facts[f"stat.{key}"][1])


def picture(*shape: int) -> Tensor:
    return seeded_input("faces", "picture", shape, -1, 1)


def test_keys_and_shapes_are_those_of_the_public_checkpoint(forms: Forms) -> None:
    facts = layout(forms.name)
    state = {name: list(tensor.shape) for name, tensor in forms.nets["plain"].state_dict().items()}
    assert state == facts["parameters"]
    assert {name for name, _ in forms.nets["plain"].named_buffers()} == set(facts["buffers"])


@pytest.mark.parametrize(("forms", "form"), GOLDEN, indirect=["forms"])
def test_golden(forms: Forms, form: str) -> None:
    made = forms.outputs(form)
    for key in made.keys() & {name.removeprefix("stat.") for name in golden(forms.name)}:
        same(forms.name, key, made[key])
    assert forms.gmacs[form] == pytest.approx(GMACS[forms.name][form == "deployable"], abs=0.01)


@pytest.mark.parametrize("forms", ["parsenet"], indirect=True)
def test_masks_and_classes_are_those_of_the_golden_logits(forms: Forms) -> None:
    made, want = forms.outputs("deployable"), golden("parsenet")
    wrong = made["classes"] != want["out.argmax" if "out.argmax" in want else "argmax"]
    assert float(wrong.float().mean()) < 1e-4
    probability = want["out.mask_logits"].double().softmax(dim=1)
    for plane, classes in enumerate((parsenet.FACE, parsenet.MOUTH)):
        mask = probability[:, list(classes)].sum(dim=1)
        assert float((made["masks"][:, plane, ::8, ::8] - mask).abs().max()) < 1e-4


def test_buffers_that_no_training_changes() -> None:
    facts = layout("gpen")
    shapes = {name: facts["parameters"][name] for name in facts["buffers"]}
    state = seeded_state(shapes, gpen.SEED_RULE)
    for name, rows in facts["fixed_buffer_values"].items():
        assert torch.equal(state.pop(name), torch.tensor(rows) / 64)
    assert not state
    noise = "stylegan_decoder.noises.noise3"
    assert not seeded_state({noise: (1, 1, 16, 16)}, gfpgan.SEED_RULE)[noise].any()


def test_masks_of_logits_that_would_overflow() -> None:
    logits = picture(2, parsenet.CLASSES, 3, 5) * 300
    want = logits.softmax(dim=1)
    masks = torch.stack([want[:, list(c)].sum(dim=1) for c in (parsenet.FACE, parsenet.MOUTH)], dim=1)
    equal(parsenet_deploy.Masks()(logits), masks)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_body_of_parsenet_computes_in_float32(dtype: torch.dtype) -> None:
    blocks = filled(nn.Conv2d(3, 3, 1))
    x = picture(2, 3, 4, 5).to(dtype)
    made = parsenet_deploy.Body(blocks)(x)
    assert made.dtype == dtype
    assert torch.equal(made, (x.float() + blocks(x.float())).to(dtype))


@pytest.mark.parametrize("forms", ["ganimation"], indirect=True)
def test_the_features_before_the_heads(forms: Forms) -> None:
    with torch.inference_mode():
        same("ganimation", "embed", forms.nets["plain"].embed(*golden_inputs("ganimation")))  # type: ignore[operator]


def test_a_deployable_form_wants_no_gradients_and_shares_nothing(forms: Forms) -> None:
    plain, deployable = forms.nets.values()
    assert not deployable.training
    assert not any(parameter.requires_grad for parameter in deployable.parameters())
    taken = {tensor.data_ptr() for tensor in plain.state_dict().values() if tensor.numel()}
    assert taken.isdisjoint(tensor.data_ptr() for tensor in deployable.state_dict().values())


@pytest.mark.parametrize("forms", ["ganimation"], indirect=True)
def test_the_exported_file_is_the_plain_network(forms: Forms, tmp_path: Path) -> None:
    path = tmp_path / "ganimation.onnx"
    export_onnx(forms.nets["deployable"], GANIMATION, path)
    check_onnx(path, GANIMATION)
    cases = fidelity_cases(GANIMATION)
    reference = [torch_runner(forms.nets["plain"], GANIMATION)(case.inputs) for case in cases]
    judge(GANIMATION, cases, reference, onnx_runner(path, GANIMATION, torch.get_num_threads()))


def test_specs_count_what_is_measured() -> None:
    for name, spec in SPECS.items():
        assert spec.gmacs == pytest.approx(GMACS[name][1], abs=0.05)
        assert spec.checkpoint == layout(name)["file"]


@pytest.mark.parametrize("side", [2, 3, 8])
def test_convolution_before_doubling_holds_all_edges(side: int) -> None:
    weight, x = picture(5, 4, 3, 3), picture(2, 4, side, side)
    equal(DoubledConv(weight, side)(x), F.conv2d(enet.double(x), weight, padding=1))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4)])
def test_transposed_convolution_and_blur(size: tuple[int, int]) -> None:
    plain = filled(gpen.ModulatedConv(4, 5, 3, demodulate=False, enlarge=True))
    assert isinstance(plain, gpen.ModulatedConv)
    plain.blur.kernel.copy_(gpen.blur_kernel(4.0))
    plain.modulation.weight.zero_()
    plain.modulation.bias.fill_(1.0)
    x = picture(2, 4, *size)
    got = SpreadConv(plain.effective_weight()[0].flip(2, 3))(x)
    equal(got, plain(x, torch.zeros(2, gpen.STYLE)))


def test_doubling_to_black() -> None:
    x = picture(2, 3, 4, 5)
    equal(gpen_deploy.doubled_to_black(x), gpen.Upsample()(x))


@pytest.mark.parametrize("layers", [1, 2])
def test_styled_convolution_with_an_appended_feature(layers: int) -> None:
    torch_layers = [filled(gpen.StyledConv(6, 3)), filled(gpen.StyledConv(6, 3, enlarge=True))][:layers]
    x, factor, style = picture(2, 6, 4, 5), picture(2, 6), picture(2, gpen.STYLE)
    want, got = x * factor[:, :, None, None], (x, factor)
    for plain in torch_layers:
        assert isinstance(plain, gpen.StyledConv)
        if plain.conv.enlarge:
            plain.conv.blur.kernel.copy_(gpen.blur_kernel(4.0))
        grown = 2 if plain.conv.enlarge else 1
        feature = picture(2, 3, want.shape[2] * grown, want.shape[3] * grown)
        got = gpen_deploy.FixedStyledConv(plain)(got, plain.conv.modulation(style), feature)
        want = plain(want, style, feature)
    equal(got[0] * got[1][:, :, None, None], want, 1e-5)


def test_another_blur_is_refused() -> None:
    network = NETWORKS["gpen"].build()
    for name, buffer in network.named_buffers():
        buffer.copy_(gpen.blur_kernel(1.0 if name.startswith("ecd") else 4.0))
    buffer[0, 0] *= 2
    with pytest.raises(CheckpointError, match=r"ecd\d\.0\.0\.kernel"):
        gpen_deploy.deployable(network)  # type: ignore[arg-type]


def test_growing_block_with_its_skip_before_doubling() -> None:
    plain = filled(gfpgan.GrowingBlock(4, 6))
    assert isinstance(plain, gfpgan.GrowingBlock)
    x = picture(2, 4, 64, 64)
    fixed = gfpgan_deploy.FixedGrowingBlock(plain, 64, Rewriter({}))
    assert any(isinstance(module, DoubledConv) for module in fixed.modules())
    equal(fixed(x), plain(x), 1e-5)


@pytest.mark.parametrize("scale", ["none", "up", "down"])
def test_parse_layer_over_a_mirrored_border(scale: str) -> None:
    plain = filled(parsenet.ConvLayer(3, 5, scale, norm=True, activate=True))
    assert isinstance(plain, parsenet.ConvLayer)
    x = picture(2, 3, 4, 6)
    equal(parsenet_deploy.FixedConvLayer(plain, Rewriter({}))(x), plain(x), 1e-5)


@pytest.mark.parametrize("side", [7, 12])
def test_action_units_as_planes(side: int) -> None:
    weight, values = picture(4, 5, 7, 7), picture(2, 5)
    planes = values[:, :, None, None].expand(-1, -1, side, side)
    equal(ganimation_deploy.UnitPlanes(weight, side)(values), F.conv2d(planes, weight, padding=3))


def test_transposed_convolution_as_four() -> None:
    plain = nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1, bias=False)
    plain.requires_grad_(False).weight.copy_(picture(4, 3, 4, 4))
    x = picture(2, 4, 3, 5)
    equal(ganimation_deploy.TransposedPhases(plain, Rewriter({}))(x), plain(x))


class _Same(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image


class _Tenth(nn.Module):
    """Face everywhere in the first column, a tenth of a mouth elsewhere."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        masks = torch.full((len(image), 2, *image.shape[2:]), 0.1)
        masks[:, 0, :, 0] = 1.0
        return masks, masks[:, 0]


class _Half(nn.Module):
    """Colour from the action units, attention one half on the left half of the picture, one on the right."""

    def forward(self, image: Tensor, aus: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention = torch.ones_like(image[:, :1])
        attention[..., : image.shape[-1] // 2] = 0.5
        color = torch.ones_like(image) * aus[:, :1, None, None]
        return color, attention, image


def levels(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8))


def test_a_restorer_that_changes_nothing_returns_the_picture() -> None:
    image = levels(2, 8, 8, 3)
    assert torch.equal(RestorerPictures(_Same(), torch.float32)(image), image)


def test_masks_as_levels() -> None:
    masks = ParseNetPictures(_Tenth(), torch.float32)(levels(2, 6, 4, 3))
    assert (masks.dtype, masks.shape) == (torch.uint8, (2, 6, 4, 2))
    assert masks[0, 0].tolist() == [[255, 26], [26, 26], [26, 26], [26, 26]]  # 25.5 is rounded to even


def test_what_attention_keeps_stays_as_sharp_as_it_was() -> None:
    image = levels(1, 384, 384, 3)
    edited = GANimationPictures(_Half(), torch.float32)(image, torch.full((1, 17), 0.2))
    assert torch.equal(edited[:, :, 195:], image[:, :, 195:])
    mixed = torch.round(image[:, :, :189] * 0.5 + 0.5 * (0.2 * 127.5 + 127.5))
    assert int((edited[:, :, :189] - mixed).abs().max()) <= 1
