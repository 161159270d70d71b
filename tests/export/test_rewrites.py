"""Every rewrite of the deployable forms, alone and on small odd sizes, against the plain block."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from reference_data import filled
from tolerances import equal
from torch import Tensor, nn

from dubstream.engines.errors import UsageError
from dubstream.export.networks import enet, enet_deploy, recon_deploy
from dubstream.export.networks.blocks import AdaIN, ConvStage, PictureNorm, SpectralConv2d, same_conv
from dubstream.export.networks.dft import DENSE_LIMIT, Fourier
from dubstream.export.networks.dnet import DESCRIPTOR, EditingBlock, warp
from dubstream.export.networks.dnet_deploy import LiveEditingBlock
from dubstream.export.networks.driven import DriverBank, NormCollector
from dubstream.export.networks.fixed_blocks import (
    DoublingConv,
    QuadConv,
    fixed_picture_norm,
    fixed_same_conv,
    fixed_spectral_conv,
    fixed_stage,
)
from dubstream.export.networks.fourier import FourierBlock, SpectralTransform
from dubstream.export.networks.lnet import SoundConv
from dubstream.export.networks.lnet_deploy import FixedFourierBlock, FixedSoundConv, FixedSpectralTransform
from dubstream.export.networks.recon import Bottleneck
from dubstream.export.networks.rewrite import Rewriter
from dubstream.export.seeded import seeded_input

SIZES = [(12, 12), (24, 24), (1, 1), (2, 3), (5, 7), (17, 16), (16, 17), (19, 23)]


def picture(*shape: int) -> Tensor:
    return seeded_input("rewrites", "picture", shape, -1, 1)


def rewriter(collector: NormCollector | None = None) -> Rewriter:
    return Rewriter(
        {
            AdaIN: collector or NormCollector(),
            nn.Conv2d: fixed_same_conv,
            SpectralConv2d: fixed_spectral_conv,
            PictureNorm: fixed_picture_norm,
            ConvStage: fixed_stage,
            EditingBlock: LiveEditingBlock,
            SoundConv: FixedSoundConv,
            Bottleneck: recon_deploy.merged_block,
            nn.Sequential: recon_deploy.merged_pair,
        }
    )


def test_the_sizes_cover_both_kinds_of_transform() -> None:
    assert {height * width <= DENSE_LIMIT for height, width in SIZES} == {True, False}


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_fourier_as_products(height: int, width: int) -> None:
    x, fourier = picture(2, 3, height, width), Fourier(height, width)
    spectrum = torch.fft.rfft2(x, norm="ortho")
    planes = torch.stack([spectrum.real, spectrum.imag], dim=2).flatten(1, 2)
    equal(fourier(x), planes)
    # Any half spectrum, also one that no real picture has: the network's ReLU makes such.
    free = F.relu(picture(2, 6, height, width // 2 + 1))
    wanted = torch.fft.irfft2(torch.complex(free[:, ::2], free[:, 1::2]), s=(height, width), norm="ortho")
    equal(fourier.inverse(free), wanted)


@pytest.mark.parametrize(("height", "width"), SIZES[3:])
def test_spectral_transform(height: int, width: int) -> None:
    plain = filled(SpectralTransform(12))
    fixed = FixedSpectralTransform(plain, Fourier(height, width))  # type: ignore[arg-type]
    x = picture(2, 12, height, width)
    equal(fixed(x), plain(x), 1e-5)


@pytest.mark.parametrize("size", [(12, 12), (5, 7)])
def test_fourier_block(size: tuple[int, int]) -> None:
    plain, collector = filled(FourierBlock(16, 20)), NormCollector()
    assert isinstance(plain, FourierBlock)
    fixed = FixedFourierBlock(plain, collector, Fourier(*size))
    x, driver = picture(3, 16, *size), picture(3, 20)
    equal(fixed(x, DriverBank(collector.norms)(driver)), plain(x, driver), 1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_all_driven_norms_from_one_bank(batch: int) -> None:
    norms = [AdaIN(channels, 20) for channels in (4, 6, 4, 3, 5, 3, 5)]
    filled(nn.ModuleList(norms))
    collector = NormCollector()
    fixed = [rewriter(collector)(norm) for norm in norms[:3]]
    fixed += [collector.joint(norms[3], norms[4]), collector.joint(norms[5], norms[6])]
    driver = picture(batch, 20)
    driven = DriverBank(collector.norms)(driver)
    for got, parts in zip(fixed, [(0,), (1,), (2,), (3, 4), (5, 6)], strict=True):
        pictures = [picture(batch, norms[part].mlp_gamma.out_features, 5, 7) for part in parts]
        want = torch.cat([norms[part](x, driver) for part, x in zip(parts, pictures, strict=True)], dim=1)
        equal(got(torch.cat(pictures, dim=1), driven), want, 1e-5)


@pytest.mark.parametrize(("enlarge", "halve"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("conv", [same_conv, SpectralConv2d])
def test_stage(conv: type[nn.Module], enlarge: bool, halve: bool) -> None:
    plain = filled(ConvStage(conv(3, 6, 3), 6, enlarge=enlarge, halve=halve))
    x = picture(2, 3, 6, 10)
    equal(rewriter()(plain)(x), plain(x), 1e-5)


def test_picture_norm_far_from_zero() -> None:
    plain = filled(PictureNorm(4))
    x = picture(2, 4, 9, 11) + torch.tensor([100.0, -50.0])[:, None, None, None]
    want = plain.double()(x.double()).float()
    equal(rewriter()(plain.float())(x), want, 3e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4)])
def test_doubling_by_repetition_inside_the_convolution(size: tuple[int, int]) -> None:
    conv = filled(nn.Conv2d(3, 4, 3, padding=1))
    assert isinstance(conv, nn.Conv2d)
    x = picture(2, 3, *size)
    equal(DoublingConv(conv)(x), conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))


@pytest.mark.parametrize("kernel", [3, 7])
def test_few_channels_as_squares_of_pixels(kernel: int) -> None:
    conv = filled(same_conv(5, 2, kernel))
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(rewriter()(conv), QuadConv) == (kernel == 7)
    x = picture(2, 5, 6, 10)
    equal(QuadConv(conv)(x), conv(x))


def test_editing_block_without_its_dead_half() -> None:
    plain, collector = filled(EditingBlock(4)), NormCollector()
    live = rewriter(collector)(plain)
    x, descriptor = picture(2, 4, 6, 7), picture(2, DESCRIPTOR)
    equal(live(x, DriverBank(collector.norms)(descriptor)), plain(x, descriptor), 1e-5)
    assert len(collector.norms) == 1


@pytest.mark.parametrize("residual", [False, True])
def test_sound_convolution_with_its_norm_inside(residual: bool) -> None:
    plain = filled(SoundConv(4, 4, stride=1 if residual else (3, 2), residual=residual))
    x = picture(2, 4, 9, 8)
    equal(rewriter()(plain)(x), plain(x))


@pytest.mark.parametrize("stride", [1, 2])
def test_bottleneck_with_its_norms_inside(stride: int) -> None:
    plain = filled(Bottleneck(16, 4, stride))
    x = picture(2, 16, 7, 7)
    fixed = rewriter()(plain)
    equal(fixed(x), plain(x), 1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fixed.modules())


@pytest.mark.parametrize("size", [(4, 4), (6, 10)])
def test_halving_as_means_of_squares(size: tuple[int, int]) -> None:
    plain = filled(enet.HalvingBlock(4, 6))
    assert isinstance(plain, enet.HalvingBlock)
    x = picture(2, 4, *size)
    equal(enet_deploy.FixedHalvingBlock(plain, rewriter())(x), plain(x))


def styled(channels_in: int, *, enlarge: bool) -> tuple[enet.StyledConv, Tensor]:
    """A plain styled convolution and the style of two samples (positive and negative factors)."""
    plain = filled(enet.StyledConv(channels_in, 6, enlarge=enlarge))
    assert isinstance(plain, enet.StyledConv)
    return plain, picture(2, enet.STYLE) * 4


def kept(plain: Tensor, got: Tensor, first: int) -> Tensor:
    height, width = got.shape[2:]
    return plain[:, :, first : first + height, first : first + width]


@pytest.mark.parametrize(
    ("channels_in", "enlarge", "first"), [(8, False, 1), (3, True, 1), (8, True, 2)], ids=str
)
@pytest.mark.parametrize("noisy", [False, True])
def test_styled_convolution(channels_in: int, enlarge: bool, first: int, noisy: bool) -> None:
    plain, code = styled(channels_in, enlarge=enlarge)
    x, factor = picture(2, channels_in, 9, 12), picture(2, channels_in)
    noise = picture(1, 1, 18, 24)[:, :, : 18 if enlarge else 9, : 24 if enlarge else 12]
    want = plain(x * factor[:, :, None, None], code, noise if noisy else None)
    style = plain.modulated_conv.modulation(code)
    clean, _ = enet_deploy.FixedStyledConv(plain, None)((x, factor), style)
    seen = kept(noise, clean, first) if noisy else None
    got, left = enet_deploy.FixedStyledConv(plain, seen)((x, factor), style)
    got = got * left[:, :, None, None]
    # The enlarging form holds no edges: its first and last two rows and columns are not the plain ones.
    inside = (..., slice(2, -3), slice(2, -3)) if first == 2 else (...,)
    equal(got[inside], kept(want, got, first)[inside], 1e-5)


def test_to_picture_as_weighted_sums() -> None:
    plain = filled(enet.ToPicture(8))
    assert isinstance(plain, enet.ToPicture)
    x, factor, code = picture(2, 8, 6, 10), picture(2, 8), picture(2, enet.STYLE)
    below = picture(2, 3, 3, 5)
    style = plain.modulated_conv.modulation(code)
    got = enet_deploy.FixedToPicture(plain)((x, factor), style) + enet.double(below)
    equal(got, plain(x * factor[:, :, None, None], code, below), 1e-5)


def test_fixed_noise_is_reproducible() -> None:
    first, again, other = enet.fixed_noise(1), enet.fixed_noise(1), enet.fixed_noise(2)
    assert [tuple(noise.shape) for noise in first] == [(1, 1, size, size) for size in (200, 200, 400, 400)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    with pytest.raises(UsageError, match="-1"):
        enet.fixed_noise(-1)


def test_no_flow_still_shrinks_the_picture_by_half_a_grid_pixel() -> None:
    """The kept quirk: corner pixels of the grid on corner centres, sampled as if on the edges."""
    ramp = torch.linspace(-1 + 1 / 32, 1 - 1 / 32, 32).expand(1, 1, 32, 32)  # value is the coordinate
    warped = warp(ramp, torch.zeros(1, 2, 8, 8))[0, 0, 16]
    inner = (torch.arange(4, 28) + 0.5) / 4 - 0.5  # position on the 8-pixel grid
    equal(warped[4:28], 2 * inner / 7 - 1, 1e-5)


def test_flow_is_in_pixels_of_its_own_grid() -> None:
    image = picture(1, 1, 32, 32)
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 0] = 7 / 8  # an eighth of the picture's width in sampling coordinates: four pixels
    moved = warp(image, flow)
    shifted = warp(image.roll(-4, dims=3), torch.zeros(1, 2, 8, 8))
    equal(moved[..., 4:24], shifted[..., 4:24], 1e-5)


def test_a_rewriter_copies_what_it_has_no_rule_for() -> None:
    plain = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    twin = Rewriter({})(plain)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    for tensor in twin.state_dict().values():
        tensor.fill_(5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())
    assert not twin.training
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert plain.training
    assert all(parameter.requires_grad for parameter in plain.parameters())
