"""Pictures of the report: black and white are the network's own, colours are shown blue first."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.specs import SPECS, spec_of
from dubstream.export.verify.page import shown_levels


@pytest.mark.parametrize(
    ("network", "precision", "output", "black", "white"),
    [
        ("gfpgan", "fp32", "restored", -1.0, 1.0),  # without a range: the one of its input
        ("enet", "fp32", "enhanced", 0.0, 1.0),
        ("ganimation", "fp32", "color", -1.0, 1.0),
        ("gfpgan", "fp16", "restored", 0.0, 255.0),
    ],
)
def test_black_and_white_are_the_networks_own(
    network: str, precision: str, output: str, black: float, white: float
) -> None:
    spec = spec_of(network, precision)
    tensor = spec.output(output)
    for value, level in ((black, 0.0), (white, 255.0), (np.nan, 0.0)):
        shown = shown_levels(np.full(tensor.concrete(1), value, np.float32), tensor, spec)
        np.testing.assert_allclose(shown, level, atol=1e-4)
        assert shown.shape[-1] == 3


def test_red_planes_come_last() -> None:
    spec = SPECS["gpen"]
    tensor = spec.output("restored")
    values = np.full(tensor.concrete(1), -1.0, np.float32)
    values[:, 0] = 1.0
    assert shown_levels(values, tensor, spec)[0, 0].tolist() == [0, 0, 255]
