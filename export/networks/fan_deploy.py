"""FAN-4 in its deployable form: norms behind convolutions folded, the links between stacks one product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.fan import FAN, STACKS
from dubstream.export.networks.rewrite import Rewriter, constant, fixed_conv, merged_batch_norm


class DeployableFAN(nn.Module):
    """`FAN`, ready for export; same input and output.

    The norms inside the blocks stay, as what they read is also read without them; but what they do is worked
    out beforehand, so that no root of a small variance is taken in half precision.
    """

    def __init__(self, plain: FAN) -> None:
        super().__init__()
        copied = Rewriter({nn.BatchNorm2d: fixed_norm})
        self.stem = merged_batch_norm(plain.conv1, plain.bn1)
        self.blocks = nn.ModuleList(copied(block) for block in (plain.conv2, plain.conv3, plain.conv4))
        parts = [{name: plain.get_submodule(f"{name}{stack}") for name in _NAMES} for stack in range(STACKS)]
        self.hourglasses = nn.ModuleList(copied(part["m"]) for part in parts)
        self.tops = nn.ModuleList(copied(part["top_m_"]) for part in parts)
        self.lasts = nn.ModuleList(_last(part) for part in parts)
        self.links = nn.ModuleList(_link(plain, stack) for stack in range(STACKS - 1))
        self.maps = copied(parts[-1]["l"])

    def forward(self, image: Tensor) -> Tensor:
        first, second, third = self.blocks
        x = third(second(F.avg_pool2d(first(F.relu(self.stem(image))), 2)))
        y = x
        for stack, (hourglass, top, last) in enumerate(
            zip(self.hourglasses, self.tops, self.lasts, strict=True)
        ):
            y = F.relu(last(top(hourglass(x))))
            if stack < STACKS - 1:
                x = x + self.links[stack](y)
        heatmaps: Tensor = self.maps(y)
        return heatmaps


_NAMES = ("m", "top_m_", "conv_last", "bn_end", "l")


def fixed_norm(norm: nn.BatchNorm2d, _: Rewriter) -> nn.BatchNorm2d:
    """Rule: the same scale and shift per channel as weight and bias of a norm of mean 0 and variance 1."""
    scale = norm.weight.double() / torch.sqrt(norm.get_buffer("running_var").double() + norm.eps)
    shift = norm.bias.double() - norm.get_buffer("running_mean").double() * scale
    fixed = nn.BatchNorm2d(norm.num_features, eps=0.0)  # ONNX Runtime fuses a norm with its ReLU
    fixed.weight, fixed.bias = constant(scale.float()), constant(shift.float())
    return fixed


def _last(part: dict[str, nn.Module]) -> nn.Conv2d:
    conv = part["conv_last"]
    assert isinstance(conv, nn.Conv2d)
    return merged_batch_norm(conv, part["bn_end"])


def _link(plain: FAN, stack: int) -> nn.Conv2d:
    """`bl(y) + al(l(y))` as one 1x1 convolution, multiplied out in float64."""
    (direct, start), (back, offset), (maps, level) = (
        _matrix(plain.get_submodule(f"{name}{stack}")) for name in ("bl", "al", "l")
    )
    weight = (direct + back @ maps)[..., None, None]
    return fixed_conv(weight.float(), (start + offset + back @ level).float())


def _matrix(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out,) of a 1x1 convolution in float64."""
    return conv.get_parameter("weight").double().flatten(1), conv.get_parameter("bias").double()


def deployable(plain: FAN) -> nn.Module:
    """The deployable form of a loaded FAN-4."""
    with torch.no_grad():
        return DeployableFAN(plain).eval()
