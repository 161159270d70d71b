"""The documented rule of seeded weights and inputs."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference_data import golden
from torch import Tensor, nn

from dubstream.engines.errors import UsageError
from dubstream.export.networks.blocks import SpectralConv2d
from dubstream.export.seeded import AUXILIARY, MAIN, SeedRule, seeded_input, seeded_state

SHAPES = {
    "a.weight": (6, 4, 3, 3),
    "a.bias": (6,),
    "norm.weight": (6,),
    "norm.running_mean": (6,),
    "norm.running_var": (6,),
    "norm.num_batches_tracked": (),
    "picture.weight": (6, 1, 1),
    "picture.bias": (6, 1, 1),
    "styled.bias": (1, 6, 1, 1),
}


def drawn(name: str, salt: str = "retalk") -> Tensor:
    """The standard normal numbers of a tensor, by the rule's own words."""
    key = int.from_bytes(hashlib.sha256(f"{salt}:{name}".encode()).digest()[:8], "little")
    generator = np.random.Generator(np.random.Philox(key=key))
    return torch.from_numpy(generator.standard_normal(SHAPES[name]).astype(np.float32))


def expected(rule: SeedRule) -> dict[str, Tensor]:
    flat = rule.channel_scales
    scale, shift = drawn("picture.weight"), drawn("picture.bias")
    return {
        "a.weight": drawn("a.weight") * rule.gain / 6,  # fan in 4 * 3 * 3
        "a.bias": drawn("a.bias") / 10,
        "norm.weight": 1 + drawn("norm.weight") / 10,
        "norm.running_mean": drawn("norm.running_mean") / 10,
        "norm.running_var": 1 + drawn("norm.running_var").abs() / 10,
        "norm.num_batches_tracked": torch.tensor(0),
        "picture.weight": 1 + scale / 10 if flat else scale * rule.gain,
        "picture.bias": shift / 10 if flat else shift * rule.gain,
        "styled.bias": drawn("styled.bias") * rule.gain / 6**0.5,
    }


@pytest.mark.parametrize("rule", [MAIN, AUXILIARY, replace(AUXILIARY, gain=0.5)])
def test_every_case_of_the_rule(rule: SeedRule) -> None:
    state = seeded_state(SHAPES, rule)
    assert list(state) == list(SHAPES)
    for name, want in expected(rule).items():
        assert state[name].dtype == want.dtype
        torch.testing.assert_close(state[name], want, rtol=2e-7, atol=0)


def test_the_first_matching_gain_wins() -> None:
    rule = replace(AUXILIARY, gain_overrides=((r"^a\.", 3.0), (r"weight$", 5.0)))
    state, plain = seeded_state(SHAPES, rule), seeded_state(SHAPES, AUXILIARY)
    torch.testing.assert_close(state["a.weight"], 3 * plain["a.weight"])
    torch.testing.assert_close(state["picture.weight"], 5 * plain["picture.weight"])
    assert torch.equal(state["styled.bias"], plain["styled.bias"])
    assert torch.equal(state["norm.weight"], plain["norm.weight"])


def test_a_spectral_norm_is_one() -> None:
    conv = SpectralConv2d(3, 5, 3)
    conv.load_state_dict(seeded_state(conv))
    torch.testing.assert_close(conv.effective_weight(), conv.weight_orig, rtol=1e-6, atol=0)
    assert float(torch.linalg.vector_norm(conv.weight_v)) == pytest.approx(1, abs=1e-6)


def test_spectral_vectors_without_their_weight_are_refused() -> None:
    with pytest.raises(UsageError, match="weight_orig"):
        seeded_state({"conv.weight_u": (4,), "conv.weight_v": (9,)})


def test_the_salt_changes_everything_and_nothing_else_does() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    first, again, other = seeded_state(module), seeded_state(module), seeded_state(module, salt="pepper")
    assert list(first) == list(module.state_dict())
    for name, value in first.items():
        assert torch.equal(value, again[name])
        if value.is_floating_point():
            assert not torch.equal(value, other[name])


def test_inputs_are_those_of_the_reference() -> None:
    image = seeded_input("recon", "image", (2, 3, 224, 224), 0.0, 1.0)
    assert torch.equal(image, golden("recon")["in.image"])
    assert not torch.equal(image, seeded_input("recon", "image", (2, 3, 224, 224), 0.0, 1.0, salt="pepper"))
