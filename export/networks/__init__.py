"""The networks of VideoReTalking, written for this project and key-compatible with its checkpoints.

Every network exists in two forms. The plain one follows the paper, loads the public keys and is the
root of every comparison of values and speed. The deployable one is made from a loaded plain one,
computes the same function and is what gets exported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from dubstream.export.networks import (
    dnet_deploy,
    enet_deploy,
    fan_deploy,
    ganimation_deploy,
    gfpgan,
    gfpgan_deploy,
    gpen,
    gpen_deploy,
    lnet_deploy,
    parsenet_deploy,
    recon_deploy,
    retinaface_deploy,
    s3fd_deploy,
)
from dubstream.export.networks.dnet import DNet
from dubstream.export.networks.enet import ENet
from dubstream.export.networks.fan import FAN
from dubstream.export.networks.ganimation import GANimation
from dubstream.export.networks.lnet import LNet
from dubstream.export.networks.parsenet import ParseNet
from dubstream.export.networks.recon import ReconNet
from dubstream.export.networks.retinaface import RetinaFace
from dubstream.export.networks.s3fd import S3FD
from dubstream.export.seeded import AUXILIARY, MAIN, SeedRule


@dataclass(frozen=True)
class NetworkFactory:
    """How one network is made; what its tensors are is in `dubstream.engines.specs`.

    Attributes:
        plain: the class of the plain form.
        deployable: makes the deployable form of a loaded plain one: eval mode, no gradients, inputs
            and outputs in the order of its spec, any batch. The plain one is left as it was. E-Net's
            takes `noise_seed`, an integer, for constant style noise.
        seed_rule: variant of the rule for `--weights seeded`.
    """

    plain: Callable[[], nn.Module]
    deployable: Callable[..., nn.Module]
    seed_rule: SeedRule = MAIN

    def build(self) -> nn.Module:
        """The plain form in eval mode, float32, without gradients; its weights are yet to be loaded."""
        with torch.device("meta"):  # nothing is drawn for weights that will be replaced
            network = self.plain()
        return network.to_empty(device="cpu").eval().requires_grad_(False)


NETWORKS: dict[str, NetworkFactory] = {
    "dnet": NetworkFactory(DNet, dnet_deploy.deployable),
    "lnet": NetworkFactory(LNet, lnet_deploy.deployable),
    "enet": NetworkFactory(ENet, enet_deploy.deployable),
    "recon": NetworkFactory(ReconNet, recon_deploy.deployable, AUXILIARY),
    "s3fd": NetworkFactory(S3FD, s3fd_deploy.deployable, AUXILIARY),
    "retinaface": NetworkFactory(RetinaFace, retinaface_deploy.deployable, replace(AUXILIARY, gain=0.7)),
    "fan4": NetworkFactory(FAN, fan_deploy.deployable, replace(AUXILIARY, gain=0.5)),
    "gfpgan": NetworkFactory(gfpgan.GFPGAN, gfpgan_deploy.deployable, gfpgan.SEED_RULE),
    "gpen": NetworkFactory(gpen.GPEN, gpen_deploy.deployable, gpen.SEED_RULE),
    "parsenet": NetworkFactory(ParseNet, parsenet_deploy.deployable, AUXILIARY),
    "ganimation": NetworkFactory(GANimation, ganimation_deploy.deployable, AUXILIARY),
}
"""By the names of `dubstream.engines.specs.SPECS`."""
