"""The four networks of every dub against the public layouts and the golden outputs, in both forms.

The others are in `test_face_detectors` and `test_face_networks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from reference_data import chained_faces, golden, golden_inputs, layout, seeded_network
from torch import Tensor, nn

from dubstream.engines.errors import UsageError
from dubstream.engines.specs import CORE, DRIVING_WINDOW, SPECS
from dubstream.export.networks import NETWORKS
from dubstream.export.networks.enet import fixed_noise

STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "weight_u", "weight_v")


@dataclass
class Forms:
    name: str
    plain: nn.Module
    deployable: nn.Module

    @cached_property
    def deployed(self) -> tuple[Tensor, ...]:
        """What the deployable form makes of the golden inputs."""
        return outputs(self.deployable, golden_inputs(self.name))


@pytest.fixture(scope="module", params=CORE)
def forms(request: pytest.FixtureRequest) -> Iterator[Forms]:
    plain = seeded_network(request.param)
    with torch.inference_mode():
        yield Forms(request.param, plain, NETWORKS[request.param].deployable(plain))


def outputs(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        got = network(*inputs)
    return (got,) if isinstance(got, Tensor) else tuple(got)


def single(name: str, window: int = DRIVING_WINDOW) -> tuple[Tensor, ...]:
    """Inputs of batch 1 as in production."""
    inputs = tuple(tensor[:1] for tensor in golden_inputs(name))
    return (inputs[0], inputs[1][..., :window]) if name == "dnet" else inputs


def compared(name: str, got: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    """Pairs of computed and golden values; the golden file holds some outputs in part."""
    want = golden(name)
    if name == "dnet":
        edited, warped, flow = got
        halves = [(edited[..., ::2, ::2], want["edited"]), (warped[..., ::2, ::2], want["warped"])]
        return [*halves, (flow, want["flow"])]
    if name == "lnet":
        return [(got[0], want["lips"])]
    if name == "enet":
        return [(got[0][..., ::3, ::3], want["enhanced"])]
    return [(got[0], want["out.coeffs"])]


def tolerance(name: str, want: Tensor) -> float:
    """1e-3 for D-Net (its norms amplify rounding), 1e-4 for the others, ReconNet's in standard deviations."""
    if name == "recon":
        return 1e-4 * float(want.std())
    return 1e-3 if name == "dnet" else 1e-4


def test_every_network_has_a_spec_and_a_factory() -> None:
    assert list(NETWORKS) == list(SPECS)


def test_keys_and_shapes_are_those_of_the_public_checkpoint(forms: Forms) -> None:
    want = {name: tuple(shape) for name, shape in layout(forms.name)["parameters"].items()}
    assert {name: tuple(tensor.shape) for name, tensor in forms.plain.state_dict().items()} == want
    buffers = {name for name, _ in forms.plain.named_buffers()}
    assert buffers == {name for name in want if name.endswith(STATISTICS)}


@pytest.mark.parametrize("form", ["plain", "deployable"])
def test_golden(forms: Forms, form: str) -> None:
    plain = form == "plain"
    made = outputs(forms.plain, golden_inputs(forms.name)) if plain else forms.deployed
    for got, want in compared(forms.name, made):
        assert got.shape == want.shape
        assert float((got - want).abs().max()) < tolerance(forms.name, want)


def test_deployable_alone_equals_its_place_in_a_batch_and_fits_the_spec(forms: Forms) -> None:
    spec = SPECS[forms.name]
    made = outputs(forms.deployable, single(forms.name, window=27))
    for alone, both, tensor in zip(made, forms.deployed, spec.outputs, strict=True):
        assert tuple(alone.shape) == tensor.concrete(1)
        assert alone.dtype == torch.float32
        assert float((alone - both[:1]).abs().max()) < tolerance(forms.name, both) / 2


def test_deployable_wants_no_gradients_and_shares_nothing(forms: Forms) -> None:
    assert not forms.deployable.training
    assert not any(parameter.requires_grad for parameter in forms.deployable.parameters())
    taken = {tensor.data_ptr() for tensor in forms.plain.state_dict().values() if tensor.numel()}
    assert taken.isdisjoint(tensor.data_ptr() for tensor in forms.deployable.state_dict().values())


@pytest.mark.parametrize("forms", ["dnet"], indirect=True)
def test_dnet_takes_any_window_from_25_frames(forms: Forms) -> None:
    inputs = single("dnet")
    for got, want in zip(outputs(forms.deployable, inputs), outputs(forms.plain, inputs), strict=True):
        assert float((got - want).abs().max()) < 1e-3
    for network in (forms.plain, forms.deployable):
        mapping = next(network.children())
        assert outputs(mapping, (single("dnet", 25)[1],))[0].shape == (1, 256)
        with pytest.raises(UsageError, match="24 frames, expected 25"):
            outputs(network, single("dnet", 24))


@pytest.mark.parametrize("forms", ["lnet"], indirect=True)
def test_lnet_gives_the_lips_of_the_chain(forms: Forms) -> None:
    lips = outputs(forms.deployable, (golden_inputs("lnet")[0], chained_faces()))[0]
    assert float((lips - golden("enet")["lips"]).abs().max()) < 1e-4


@pytest.mark.parametrize("forms", ["enet"], indirect=True)
def test_enet_with_fixed_noise_equals_the_plain_form_given_that_noise(forms: Forms) -> None:
    inputs = single("enet")
    noisy = NETWORKS["enet"].deployable(forms.plain, noise_seed=7)
    got = outputs(noisy, inputs)[0]
    with torch.inference_mode():
        want = forms.plain(*inputs, noise=fixed_noise(7))
    assert float((got - want).abs().max()) < 1e-4
    assert float((got - forms.deployed[0][:1]).abs().mean()) > 1e-3
