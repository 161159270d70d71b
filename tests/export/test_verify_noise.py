"""The noise floor: large where a norm divides by nothing, small elsewhere, and gone when it was measured."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dubstream.export.fidelity import Array
from dubstream.export.verify.inputs import Probe
from dubstream.export.verify.noise import STEP, RoundingNoise, noise_floors


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
