"""The cross attention of L-Net's encoder in its plain form: face features look at the reference.

Queries and keys come from the face, values from the reference (paper section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Multi-head attention over tokens (N, T, `width`) with values from a second token list."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(width, inner, bias=False)
        self.to_v = nn.Linear(width, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width))

    def forward(self, face: Tensor, reference: Tensor) -> Tensor:
        query, key = self._split(self.to_q(face)), self._split(self.to_k(face))
        value = self._split(self.to_v(reference))
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        mixed = torch.softmax(scores, dim=-1) @ value
        y: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return y

    def _split(self, tokens: Tensor) -> Tensor:
        return torch.unflatten(tokens, 2, (self.heads, -1)).transpose(1, 2)


class NormedAttention(nn.Module):
    """Layer norms in front of `CrossAttention`."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.normx = nn.LayerNorm(width)
        self.normy = nn.LayerNorm(width)
        self.fn = CrossAttention(width, heads, head_width)

    def forward(self, face: Tensor, reference: Tensor) -> Tensor:
        y: Tensor = self.fn(self.normx(face), self.normy(reference))
        return y


class FeedForward(nn.Module):
    """Two linear layers around a GELU (its tanh form). Position 2 was dropout in training."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        gelu = nn.GELU(approximate="tanh")
        self.net = nn.Sequential(nn.Linear(width, hidden), gelu, nn.Identity(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.net(tokens)
        return y


class NormedFeedForward(nn.Module):
    """A layer norm in front of `FeedForward`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = FeedForward(width, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.fn(self.norm(tokens))
        return y


class CrossTransformer(nn.Module):
    """Pairs of attention and feed-forward, each with a shortcut, over the pixels of two pictures.

    Args:
        width: channels of both pictures.
        depth: number of pairs.
        heads, head_width, hidden: sizes inside a pair.
    """

    def __init__(self, width: int, depth: int, heads: int, head_width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([NormedAttention(width, heads, head_width), NormedFeedForward(width, hidden)])
            for _ in range(depth)
        )

    def forward(self, face: Tensor, reference: Tensor) -> Tensor:
        tokens, others = face.flatten(2).transpose(1, 2), reference.flatten(2).transpose(1, 2)
        for index in range(len(self.layers)):
            attend = self.get_submodule(f"layers.{index}.0")
            tokens = attend(tokens, others) + tokens
            tokens = self.get_submodule(f"layers.{index}.1")(tokens) + tokens
        return tokens.transpose(1, 2).reshape(face.shape)
