"""The noise floor: large where a norm divides by nothing, small elsewhere, and gone when it was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from dubstream.engines.contract import BATCH, TensorSpec, Tolerance
from dubstream.engines.specs import RECON
from dubstream.export.fidelity import Array
from dubstream.export.verify.inputs import Probe
from dubstream.export.verify.noise import STEP, HalfRounding, RoundingNoise, noise_floors, rounding_floors


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.instance_norm(self.conv(x)[:, :, 1:-1, 1:-1])
        return nn.functional.instance_norm(y)


NETWORK = Normed().eval().requires_grad_(False)


def run(inputs: dict[str, Array]) -> dict[str, Array]:
    return {"y": NETWORK(torch.from_numpy(inputs["x"])).numpy()}


def probe(name: str, x: Array, amplifying: bool = True) -> Probe:
    return Probe(name, {"x": x.astype(np.float32)}, amplifying)


def test_a_constant_picture_shows_the_noise_that_another_one_hides() -> None:
    draw = np.random.default_rng(0)
    tried = [
        probe("grey/1", np.full((1, 3, 32, 32), 0.5)),
        probe("noise/1", draw.uniform(0, 1, (1, 3, 32, 32))),
        probe("ordinary/1", draw.uniform(0, 1, (1, 3, 32, 32)), amplifying=False),
    ]
    reference = [run(item.inputs) for item in tried]
    floors = noise_floors(run, tried, reference)
    assert set(floors) == {("grey/1", "y"), ("noise/1", "y")}
    assert STEP < floors["noise/1", "y"] < 1e-4
    assert floors["grey/1", "y"] > 20 * floors["noise/1", "y"]
    assert noise_floors(run, tried, reference) == floors  # seeded


def test_nothing_of_it_stays() -> None:
    x = {"x": np.ones((1, 3, 8, 8), np.float32)}
    before = run(x)["y"]
    with RoundingNoise(1e-2):
        disturbed = run(x)["y"]
    assert np.abs(disturbed - before).max() > 1e-3
    np.testing.assert_array_equal(run(x)["y"], before)


LOUD = replace(
    RECON,
    outputs=(TensorSpec("y", "uint8", (BATCH, 3, 8, 8), 0.0, 255.0, "pixels"),),
    tolerances={"y": Tolerance(2.0, 0.9999, "a test", relative_l2=1e-2, psnr=50.0)},
)


def loud(inputs: dict[str, Array]) -> dict[str, Array]:
    """Values to a thousand, of which a clamp leaves those between 0 and 255."""
    x = torch.from_numpy(inputs["x"])
    return {"y": nn.functional.conv2d(x, torch.full((3, 3, 1, 1), 333.3)).sub(400).clamp(0, 255).numpy()}


def test_the_rounding_floor_is_what_a_half_precision_does_to_the_network_itself() -> None:
    draw = np.random.default_rng(0)
    tried = [probe(f"{kind}/1", draw.uniform(0, 1, (1, 3, 8, 8))) for kind in ("ends", "uniform", "real")]
    reference = [loud(item.inputs) for item in tried]
    found = {
        dtype: rounding_floors(loud, LOUD, ["y"], tried, reference, dtype)
        for dtype in (torch.float16, torch.bfloat16)
    }
    assert set(found[torch.float16]) == {("ends/1", "y")}  # plausible inputs keep their tolerance
    coarse, fine = (found[dtype]["ends/1", "y"].max_abs for dtype in (torch.bfloat16, torch.float16))
    assert 0.1 < fine <= 0.25  # values of 512 to 1024 lie half a level apart
    assert 4 * fine < coarse <= 2
    assert rounding_floors(loud, LOUD, [], tried, reference, torch.float16) == {}
    np.testing.assert_array_equal(loud(tried[0].inputs)["y"], reference[0]["y"])  # nothing of it stays


def test_only_products_are_rounded() -> None:
    x = torch.tensor([1.0001])
    with HalfRounding(torch.float16):
        assert torch.equal(x + 0, x)
        assert torch.nn.functional.linear(x, torch.ones(1, 1)).item() == 1.0
