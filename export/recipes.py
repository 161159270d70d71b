"""One recipe per network: how to build it, where its weights are and how they are packed.

A new network is one module in `export/networks/`, one spec in `engines/specs.py` and one recipe here.
"""

from __future__ import annotations

from dataclasses import dataclass

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.specs import DNET, ENET, LNET, RECON
from dubstream.export.checkpoint import Container
from dubstream.export.networks import NETWORKS, NetworkFactory


@dataclass(frozen=True)
class Recipe:
    """Everything export needs to know about one network.

    Attributes:
        spec: the contract; it also names the checkpoint file.
        factory: builds the plain and the deployable form, and knows the rule of seeded weights.
        container: how the state is packed in the checkpoint file.
    """

    spec: NetworkSpec
    factory: NetworkFactory
    container: Container


_TRAINED_IN_PARALLEL = "module."

RECIPES: dict[str, Recipe] = {
    recipe.spec.name: recipe
    for recipe in (
        Recipe(DNET, NETWORKS["dnet"], Container("net_G_ema")),
        Recipe(LNET, NETWORKS["lnet"], Container("state_dict", _TRAINED_IN_PARALLEL)),
        # E-Net's public file carries a second copy of L-Net; the upstream program skips it, too.
        Recipe(ENET, NETWORKS["enet"], Container("state_dict", _TRAINED_IN_PARALLEL, ("low_res.*",))),
        Recipe(RECON, NETWORKS["recon"], Container("net_recon")),
    )
}
