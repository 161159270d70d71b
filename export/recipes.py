"""One recipe per network: how to build it, where its weights are and how they are packed.

A new network is one module in `export/networks/`, one spec in `engines/specs.py` or
`engines/face_specs.py`, and one recipe here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import UsageError
from dubstream.engines.face_specs import FAN4, GANIMATION, GFPGAN, GPEN, PARSENET, RETINAFACE, S3FD
from dubstream.engines.half_specs import HALF_SPECS, HALVES
from dubstream.engines.specs import DNET, ENET, LNET, RECON, spec_of
from dubstream.export.checkpoint import Container
from dubstream.export.face_pictures import (
    DetectorPictures,
    FANPictures,
    GANimationPictures,
    ParseNetPictures,
    RestorerPictures,
)
from dubstream.export.fidelity import Array
from dubstream.export.networks import NETWORKS, NetworkFactory
from dubstream.export.pictures import (
    DNetPictures,
    ENetPictures,
    LNetPictures,
    PictureNetwork,
    ReconPictures,
)
from dubstream.export.precision import FP32, HALF_RECIPES, PrecisionRecipe
from dubstream.export.real_inputs import real_inputs
from dubstream.export.torchscript import in_order_of, read_torchscript

Pictures = Callable[[torch.nn.Module, torch.dtype], PictureNetwork]


@dataclass(frozen=True)
class HalfForm:
    """How a network is exported in one half precision.

    Attributes:
        spec: the contract of its artifact.
        recipe: which modules are half.
        pictures: puts its pictures' conversions around it.
        real: real inputs by name, for the range audit and the comparison.
    """

    spec: NetworkSpec
    recipe: PrecisionRecipe
    pictures: Pictures
    real: Callable[[], Mapping[str, Array]]


def half_forms(network: str, pictures: Pictures) -> dict[str, HalfForm]:
    """The forms of one of this project's networks by precision."""
    return {
        precision: HalfForm(
            HALF_SPECS[network, precision],
            HALF_RECIPES[network, precision],
            pictures,
            partial(real_inputs, network),
        )
        for precision in HALVES
    }


@dataclass(frozen=True)
class Recipe:
    """Everything export needs to know about one network.

    Attributes:
        spec: the contract; it also names the checkpoint file.
        factory: builds the plain and the deployable form, and knows the rule of seeded weights.
        container: how the state is packed in the checkpoint file.
        halves: how it is exported in half precisions, by precision.
    """

    spec: NetworkSpec
    factory: NetworkFactory
    container: Container
    halves: Mapping[str, HalfForm] = field(default_factory=dict)

    def half(self, precision: str) -> HalfForm:
        """How it is exported in a half precision; `UsageError` where it is not."""
        if precision not in self.halves:
            known = ", ".join((FP32, *self.halves))
            raise UsageError(f"precision '{precision}' of {self.spec.name}, expected one of {known}")
        return self.halves[precision]


_TRAINED_IN_PARALLEL = "module."

RECIPES: dict[str, Recipe] = {
    recipe.spec.name: recipe
    for recipe in (
        Recipe(DNET, NETWORKS["dnet"], Container("net_G_ema"), half_forms("dnet", DNetPictures)),
        Recipe(
            LNET,
            NETWORKS["lnet"],
            Container("state_dict", _TRAINED_IN_PARALLEL),
            half_forms("lnet", LNetPictures),
        ),
        # E-Net's public file carries a second copy of L-Net; the upstream program skips it, too.
        Recipe(
            ENET,
            NETWORKS["enet"],
            Container("state_dict", _TRAINED_IN_PARALLEL, ("low_res.*",)),
            half_forms("enet", ENetPictures),
        ),
        Recipe(RECON, NETWORKS["recon"], Container("net_recon"), half_forms("recon", ReconPictures)),
        Recipe(S3FD, NETWORKS["s3fd"], Container(None), half_forms("s3fd", DetectorPictures)),
        Recipe(
            RETINAFACE,
            NETWORKS["retinaface"],
            Container("state_dict", _TRAINED_IN_PARALLEL, others=(None,)),
            half_forms("retinaface", DetectorPictures),
        ),
        Recipe(
            FAN4,
            NETWORKS["fan4"],
            Container(None, read=read_torchscript, named=in_order_of),
            half_forms("fan4", FANPictures),
        ),
        Recipe(
            GFPGAN,
            NETWORKS["gfpgan"],
            Container("params_ema", others=("params",)),
            half_forms("gfpgan", RestorerPictures),
        ),
        Recipe(GPEN, NETWORKS["gpen"], Container(None), half_forms("gpen", RestorerPictures)),
        Recipe(PARSENET, NETWORKS["parsenet"], Container(None), half_forms("parsenet", ParseNetPictures)),
        # The upstream program drops what its generator does not know before it loads strictly.
        Recipe(
            GANIMATION,
            NETWORKS["ganimation"],
            Container(None, ignored=("*",)),
            half_forms("ganimation", GANimationPictures),
        ),
    )
}


def recipe_named(name: str) -> Recipe:
    """The recipe of a network, or of a detector for another size (``s3fd_1280x720``), float32 alone.

    Raises:
        UsageError: an unknown name.
    """
    if name in RECIPES:
        return RECIPES[name]
    spec = spec_of(name)
    return replace(RECIPES[name.partition("_")[0]], spec=spec, halves={})
