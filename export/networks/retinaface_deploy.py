"""RetinaFace in its deployable form: batch norms folded, parallel convolutions joined, decoding inside."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.recon import Bottleneck
from dubstream.export.networks.recon_deploy import merged_block, merged_pair
from dubstream.export.networks.retinaface import (
    CENTRE_VARIANCE,
    INSIDE,
    SIZE_VARIANCE,
    STRIDES,
    Body,
    Context,
    RetinaFace,
    by_prior,
    priors,
)
from dubstream.export.networks.rewrite import Rewriter, fixed_conv, folded_batch_norm, merged_batch_norm


class DeployableRetinaFace(nn.Module):
    """`RetinaFace`, ready for export; same input and outputs, any size (a file has the traced one)."""

    def __init__(self, plain: RetinaFace) -> None:
        super().__init__()
        rewrite = Rewriter({Body: merged_block, Bottleneck: merged_block, nn.Sequential: _merged})
        self.body = rewrite(plain.body)
        self.fpn = rewrite(plain.fpn)
        contexts = [plain.get_submodule(f"ssh{level}") for level in (1, 2, 3)]
        self.contexts = nn.ModuleList(JoinedContext(context) for context in contexts)
        self.heads = nn.ModuleList(_head(plain, level) for level in range(len(STRIDES)))
        self.decode = Decode()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        boxes, scores, points = self.decode(self.numbers(image), *image.shape[2:])
        return boxes, scores, points

    def regressions(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `RetinaFace.regressions`."""
        margin, changes, shifts = torch.split(self.numbers(image), [1, 4, 10], dim=-1)
        return changes, torch.cat([torch.sigmoid(-margin), torch.sigmoid(margin)], dim=-1), shifts

    def numbers(self, image: Tensor) -> Tensor:
        """What the heads give, (N, A, 15): margin of the face's logit, 4 of the box, 10 of the points."""
        maps = self.fpn(self.body(image))
        found = [
            head(context(each)) for head, context, each in zip(self.heads, self.contexts, maps, strict=True)
        ]
        return torch.cat([by_prior(each) for each in found], dim=1)


class JoinedContext(nn.Module):
    """`Context` in three convolutions: those that read the same map are one.

    Every result meets a ReLU, at once or after the concatenation, so that it can follow each at once.
    """

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        assert isinstance(plain, Context)
        self.first = _joined(plain.conv3X3, plain.conv5X5_1)
        self.second = _joined(plain.conv5X5_2, plain.conv7X7_2)
        self.third = _joined(plain.conv7x7_3)

    def forward(self, x: Tensor) -> Tensor:
        field3, near = torch.split(F.relu(self.first(x)), [INSIDE // 2, INSIDE // 4], dim=1)
        field5, far = torch.split(F.relu(self.second(near)), [INSIDE // 4, INSIDE // 4], dim=1)
        return torch.cat([field3, field5, F.relu(self.third(far))], dim=1)


class Decode(nn.Module):
    """Numbers (N, A, 15) to boxes, scores and points in float32, whatever the numbers are."""

    def forward(self, numbers: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        margin, changes, shifts = torch.split(numbers.float(), [1, 4, 10], dim=-1)
        middle, side = priors(height, width, numbers.device)
        step = CENTRE_VARIANCE * side
        centre = middle + changes[..., :2] * step
        half = torch.exp(SIZE_VARIANCE * changes[..., 2:]) * (side / 2)
        points = middle[:, None] + torch.unflatten(shifts, 2, (5, 2)) * step[:, None]
        return torch.cat([centre - half, centre + half], dim=-1), torch.sigmoid(margin[..., 0]), points


def _merged(layers: nn.Sequential, rewrite: Rewriter) -> nn.Module:
    """Rule: a convolution, its batch norm and a ReLU become two; other sequences as in ReconNet."""
    if len(layers) == 3 and isinstance(layers[0], nn.Conv2d) and isinstance(layers[2], nn.ReLU):
        return nn.Sequential(merged_batch_norm(layers[0], layers[1]), nn.ReLU())
    return merged_pair(layers, rewrite)


def _joined(*branches: nn.Sequential) -> nn.Conv2d:
    """3x3 convolutions of one input, each with its batch norm, as one convolution."""
    folded = [folded_batch_norm(branch[0].get_parameter("weight"), None, branch[1]) for branch in branches]
    return fixed_conv(
        torch.cat([each for each, _ in folded]), torch.cat([each for _, each in folded]), padding=1
    )


def _head(plain: RetinaFace, level: int) -> nn.Conv2d:
    """The three heads of a map as one: for each prior margin, box and points.

    A softmax of two is the sigmoid of the logits' difference, which is as linear as they are.
    """
    logits, boxes, points = (
        _rows(heads[level]) for heads in (plain.ClassHead, plain.BboxHead, plain.LandmarkHead)
    )
    rows = torch.cat([logits[:, 1:] - logits[:, :1], boxes, points], dim=1).flatten(0, 1).float()
    return fixed_conv(rows[:, :-1, None, None], rows[:, -1])


def _rows(head: nn.Module) -> Tensor:
    """Weights and, in the last column, biases (2, numbers, 257) of a head, in float64."""
    conv = head.get_submodule("conv1x1")
    weight, bias = conv.get_parameter("weight").double(), conv.get_parameter("bias").double()
    return torch.unflatten(torch.cat([weight.flatten(1), bias[:, None]], dim=1), 0, (2, -1))


def deployable(plain: RetinaFace) -> nn.Module:
    """The deployable form of a loaded RetinaFace."""
    with torch.no_grad():
        return DeployableRetinaFace(plain).eval()
