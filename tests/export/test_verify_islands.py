"""Which modules must stay float32: planted losses of half precision, and the proof by export."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import half_toys
import numpy as np
import onnx
import pytest
import torch
from half_toys import RECIPE, ToyPictures, real
from torch import Tensor, nn
from verify_toys import Exported, toy_copy

from dubstream.engines.artifact import artifact_paths, digest_files, open_artifact, publish_artifact
from dubstream.engines.errors import FidelityError
from dubstream.engines.weights import WeightsChoice
from dubstream.export.checkpoint import Container
from dubstream.export.half_check import half_cases, levels_runner
from dubstream.export.half_graph import rounding_model
from dubstream.export.networks import NetworkFactory
from dubstream.export.networks.enet import DEMODULATION_EPSILON, GAIN
from dubstream.export.networks.enet_deploy import Modulation
from dubstream.export.onnx_export import export_onnx
from dubstream.export.recipes import HalfForm, Recipe
from dubstream.export.seeded import seeded_state
from dubstream.export.session import onnx_session
from dubstream.export.verify import islands_proof
from dubstream.export.verify.explain import Explainer
from dubstream.export.verify.islands import IslandProposal, propose_islands, smallest
from dubstream.export.verify.islands_emulation import Emulation
from dubstream.export.verify.islands_proof import exact_twin, module_classes, prove_by_export

SPEC = half_toys.spec("uint8")
QUIET, PLAIN, LOUD = 5e-4, 1.0, 500.0
"""Sizes of styles: squares of the first are next to nothing in float16, and those of the last too large."""


EPSILON = DEMODULATION_EPSILON
"""Zero in float16."""


def undone(style: Tensor, energy: Tensor) -> Tensor:
    return GAIN / torch.sqrt(style.square() @ energy + EPSILON)


class BareModulation(Modulation):
    """E-Net's demodulation as a recipe without its island would have it: all in half precision."""

    def forward(self, style: Tensor) -> Tensor:  # type: ignore[override]
        return undone(style, self.energy)


class Styled(nn.Module):
    """A modulated convolution, conv(x * s) * d, of a style that depends on its input.

    Only the modulation meets the style's true size.
    """

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.style = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        style = torch.sigmoid(self.style(x.mean((2, 3))))
        undo = self.undo(style * self.size) * self.size
        return torch.tanh(self.conv(x * style[:, :, None, None]) * undo[:, :, None, None])

    def undo(self, style: Tensor) -> Tensor:
        return undone(style, self.conv.weight.square().sum(dim=(2, 3)).T)


class BareStyled(Styled):
    def __init__(self, plain: Styled) -> None:
        super().__init__(plain.size)
        self.load_state_dict(plain.state_dict())
        self.modulation = BareModulation(plain.conv.weight)

    def undo(self, style: Tensor) -> Tensor:
        factor: Tensor = self.modulation(style)
        return factor


class StyledToy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList([Styled(size) for size in (PLAIN, QUIET, PLAIN, LOUD)])
        self.last = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid())

    def forward(self, image: Tensor) -> Tensor:
        for step in self.steps:
            image = step(image) + image
        y: Tensor = self.last(image)
        return y


def with_bare_modulations(plain: Any) -> nn.Module:
    """Deployable form: a twin whose modulations do not cast."""
    twin: Any = StyledToy()
    twin.load_state_dict(plain.state_dict())
    twin.steps = nn.ModuleList(BareStyled(step) for step in twin.steps)
    return twin.eval().requires_grad_(False)


def styled_recipe() -> Recipe:
    numbers = replace(RECIPE, name="styled-fp16", islands=())
    form = HalfForm(SPEC, numbers, ToyPictures, real)
    return Recipe(
        half_toys.spec("float32"),
        NetworkFactory(StyledToy, with_bare_modulations),
        Container("state_dict"),
        {"fp16": form},
    )


class Failing:
    """A half-precision model that its export would have refused, with what it should have done."""

    def __init__(self, recipe: Recipe, path: Path) -> None:
        self.recipe, form = recipe, recipe.half("fp16")
        plain = recipe.factory.build()
        plain.load_state_dict(seeded_state(plain, recipe.factory.seed_rule, salt="retalk"), assign=True)
        self.cases = half_cases(SPEC, form.real())
        run = levels_runner(form.pictures(plain, torch.float32), SPEC)
        self.reference = [run(case.inputs) for case in self.cases]
        network = recipe.factory.deployable(plain)
        self.classes = module_classes(network)
        self.exact = exact_twin(network, form)
        form.recipe.apply(network)
        export_onnx(form.pictures(network, torch.float16), SPEC, path)
        self.model = onnx.load(str(path))

    def proposal(self) -> IslandProposal | None:
        return propose_islands(
            self.model,
            SPEC,
            self.cases,
            self.reference,
            limit=RECIPE.limit,
            classes=self.classes,
            exact=self.exact,
        )


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> Failing:
    return Failing(styled_recipe(), tmp_path_factory.mktemp("styled") / "styled.onnx")


@pytest.fixture(scope="module")
def proposal(styled: Failing) -> IslandProposal:
    found = styled.proposal()
    assert found is not None
    return found


def test_the_modulations_that_lose_their_numbers_are_proposed_and_no_others(proposal: IslandProposal) -> None:
    assert proposal.modules == ("core.steps.1.modulation", "core.steps.3.modulation")
    assert proposal.classes == ("BareModulation",)
    assert proposal.proven_by == "emulation"
    assert proposal.before > 1e-2 > proposal.after
    assert "image" not in proposal.problem
    assert "shown" in proposal.problem
    assert "core.steps.1.modulation" in str(proposal)
    json.dumps(proposal.as_json(), allow_nan=False)


def test_every_one_of_them_is_needed(styled: Failing, proposal: IslandProposal) -> None:
    emulation = Emulation(styled.model, 1, styled.exact)
    case, want = styled.cases[0], styled.reference[0]["shown"]

    def error(*islands: str) -> float:
        got = emulation.run(frozenset(islands), case.inputs)["shown"]
        return float(np.linalg.norm(got - want) / np.linalg.norm(want))

    cured = error(*proposal.modules)
    assert all(error(module) > 2 * cured for module in proposal.modules)


def test_it_is_proven_by_export(styled: Failing, proposal: IslandProposal) -> None:
    proven = prove_by_export(proposal, styled.recipe, "fp16", WeightsChoice(None), threads=1)
    assert proven.doubt == ""
    assert proven.proven_by == "export"
    assert proven.after < 1e-2
    assert proven.modules == proposal.modules


def test_an_export_that_fails_all_the_same_is_a_doubt(
    styled: Failing, proposal: IslandProposal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def produce(recipe: Recipe, *_: Any, **__: Any) -> None:
        recipe.factory.deployable(recipe.factory.build())
        raise FidelityError("not the same")

    monkeypatch.setattr(islands_proof, "produce", produce)
    doubtful = prove_by_export(proposal, styled.recipe, "fp16", WeightsChoice(None))
    assert (doubtful.proven_by, doubtful.doubt) == ("emulation", "not the same")
    assert doubtful.classes == ("BareModulation",)


def test_a_model_that_holds_needs_nothing(styled: Failing, proposal: IslandProposal) -> None:
    loose = replace(SPEC.tolerances["shown"], max_abs=1e3, cosine=-1.0, relative_l2=1e3, psnr=-1e3)
    spec = replace(SPEC, tolerances={"shown": loose})
    finite = [{"shown": np.zeros_like(want["shown"])} for want in styled.reference]
    assert propose_islands(styled.model, spec, styled.cases, finite, limit=math.inf) is None


def test_what_no_island_can_cure_gets_no_proposal(styled: Failing) -> None:
    wrong = [{"shown": 255 - want["shown"]} for want in styled.reference]
    assert propose_islands(styled.model, SPEC, styled.cases, wrong, limit=math.inf) is None


@pytest.mark.parametrize("needed", [{"c"}, {"a", "h"}, {"b", "c", "d"}, set("abcdefgh")])
def test_smallest_finds_what_cannot_be_left_out(needed: set[str]) -> None:
    tried: list[tuple[str, ...]] = []

    def holds(some: Sequence[str]) -> bool:
        tried.append(tuple(some))
        return needed <= set(some)

    assert set(smallest("abcdefgh", holds)) == needed
    assert () not in tried


def test_islands_of_a_proposal_are_paths_inside_the_network(proposal: IslandProposal) -> None:
    network = with_bare_modulations(StyledToy())
    held = [
        path
        for path, module in network.named_modules()
        if any(island.holds(path, module) for island in proposal.islands())
    ]
    assert held == ["steps.1.modulation", "steps.3.modulation"]


def test_without_a_twin_everything_rounded_is_the_rounding_copy(styled: Failing) -> None:
    inputs = styled.cases[0].inputs
    session = onnx_session(rounding_model(styled.model), 1, optimised=False)
    (want,) = session.run(["shown"], inputs)
    emulation = Emulation(styled.model, 1)
    assert np.array_equal(emulation.run(frozenset(), inputs)["shown"], want)
    twin = Emulation(styled.model, 1, styled.exact)
    assert np.abs(twin.run(frozenset(), inputs)["shown"] - want).mean() < 2.0


def test_a_twin_knows_what_half_precision_has_lost(styled: Failing, proposal: IslandProposal) -> None:
    """The addition of an epsilon that is zero in float16 is not in the file any more."""
    inputs, want = styled.cases[0].inputs, styled.reference[0]["shown"]
    islands = frozenset(proposal.modules)
    got = [Emulation(styled.model, 1, exact).run(islands, inputs)["shown"] for exact in (styled.exact, None)]
    right, blind = (float(np.linalg.norm(shown - want) / np.linalg.norm(want)) for shown in got)
    assert right < 0.3 * blind


def test_a_chain_that_fails_proposes_the_islands_and_proves_them_by_export(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    sidecar = open_artifact(toy_copy(folder).folder, SPEC, "fp16").sidecar
    made = Failing(styled_recipe(), draft := tmp_path / "styled.part")
    files, digest = digest_files([draft], [artifact_paths(folder, SPEC.name, "fp16")[0].name])
    publish_artifact(draft, folder, replace(sidecar, files=files, sha256=digest))
    chain = Exported(folder, made.recipe).chain(precisions=("fp16",), quick=True)
    failed = next(result for result in chain.verify(Explainer()) if result.verdict == "failed")
    assert failed.link == "fp16/onnx"
    assert isinstance(failed.proposal, IslandProposal)
    assert failed.proposal.classes == ("BareModulation",)
    assert failed.proposal.proven_by == "export"
    assert failed.proposal.doubt == ""
