"""Public facts about the networks that the tests compare with, stored under `tests/data/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dubstream.export.networks import NETWORKS
from dubstream.export.seeded import seeded_input, seeded_state

DATA = Path(__file__).parent.parent / "data"


def layout(network: str) -> dict[str, Any]:
    """What the public checkpoint of a network holds."""
    facts: dict[str, Any] = json.loads((DATA / "layouts" / f"{network}.json").read_text())
    return facts


def golden(network: str) -> dict[str, Tensor]:
    """Outputs of the original network on seeded weights and inputs; parts of them, see `goldens`."""
    with np.load(DATA / "golden" / f"{network}.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def seeded_network(network: str) -> nn.Module:
    """The plain form with seeded weights."""
    factory = NETWORKS[network]
    plain = factory.build()
    plain.load_state_dict(seeded_state(plain, factory.seed_rule))
    return plain


def filled(block: nn.Module) -> nn.Module:
    """A block with seeded weights, in eval mode."""
    block.load_state_dict(seeded_state(block))
    return block.eval().requires_grad_(False)


def golden_inputs(network: str) -> tuple[Tensor, ...]:
    """The inputs of the golden outputs, in the order of the network's spec; batch 2."""
    if network == "dnet":
        window = seeded_input("dnet", "coefficients", (2, 73, 27), -1, 1)
        return seeded_input("dnet", "image", (2, 3, 256, 256), -1, 1), window
    if network == "lnet":
        return seeded_input("lnet", "mel", (2, 1, 80, 16), -4, 4), _faces("lnet", 96)
    if network == "enet":
        return golden("enet")["lips"], _faces("enet", 384)[:, 3:].contiguous()
    return (seeded_input("recon", "image", (2, 3, 224, 224), 0, 1),)


def _faces(network: str, size: int) -> Tensor:
    faces = seeded_input(network, "faces", (2, 6, size, size), 0, 1)
    faces[:, :3, size // 2 :] = 0
    return faces


def chained_faces() -> Tensor:
    """The faces from which the lips in E-Net's golden file were made, at L-Net's size."""
    return nn.functional.interpolate(_faces("enet", 384), size=(96, 96), mode="bilinear")
