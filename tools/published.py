"""Networks in the form that their authors run them in, where ours is another with the same output: what eager is measured on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtdenoise.methods.ted.swin import APART, WindowAttention

OURS = "pytorch, our form"
"""The row of the network as the package has it, beside the published form."""


class Attention(nn.Module):
    """As `WindowAttention`, in the published form (sheet A 4.2): scores of all heads at once, and the mask as a tensor."""

    def __init__(self, ours: WindowAttention) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, tokens: Tensor, seams: Tensor | None) -> Tensor:
        """(windows, N, embed) -> the same."""
        ours, (windows, n, embed) = self.ours, tokens.shape
        parts = ours.qkv(tokens).reshape(windows, n, 3, ours.heads, embed // ours.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0] * (embed // ours.heads) ** -0.5, parts[1], parts[2]
        scores = query @ key.transpose(-2, -1) + ours.bias_table[ours.bias_index].permute(2, 0, 1)
        if seams is not None:
            scores = scores + (APART * seams @ (1 - seams).transpose(1, 2))[:, None]
        mixed = (torch.softmax(scores, -1) @ value).transpose(1, 2)
        return ours.proj(mixed.reshape(windows, n, embed))  # type: ignore[no-any-return]


def published(network: nn.Module) -> nn.Module:
    """`network` itself, its attention replaced by the published form."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, WindowAttention):
                setattr(module, name, Attention(child))
    return network
