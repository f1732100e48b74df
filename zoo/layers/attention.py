"""Causal self-attention over a sliding window of the past, with keys that can be kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

#: Keys and values of the frames in view, ``[B, heads, n, width / heads]`` each, the newest last.
Kept = tuple[Tensor, Tensor]


class CausalAttention(nn.Module):
    r"""Each frame attends to itself and the last ``span`` − 1 frames before it.

    Where a frame stands matters only through its lag: a learned number for each head and lag is
    added to the logits. Long series therefore look to the network like short ones, and what it
    kept of a frame stays valid as the window moves on.

    Args:
        width: Channels.
        heads: Heads; they divide the width.
        span: Frames in view.

    Shapes:
        - input and output ``[B, T, width]``
    """

    def __init__(self, width: int, heads: int, span: int) -> None:
        super().__init__()
        self.heads, self.span = heads, span
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        # Heads begin with views of different length, from a few frames to the whole span.
        reach = span * 2.0 ** -torch.arange(heads - 1, -1, -1, dtype=torch.float32)
        lags = torch.arange(span, dtype=torch.float32)
        self.lag_bias = nn.Parameter(-2 * lags / reach[:, None])

    def forward(self, values: Tensor) -> Tensor:
        """Attend within whole series."""
        return self.begin(values)[0]

    def begin(self, values: Tensor) -> tuple[Tensor, Kept]:
        """As :meth:`forward`; also the keys and values of the last frames."""
        q, k, v = self._split(values)
        length = values.shape[1]
        frames = torch.arange(length, device=values.device)
        lags = frames[:, None] - frames
        seen = (lags >= 0) & (lags < self.span)
        bias = self.lag_bias[:, lags.clamp(0, self.span - 1)].masked_fill(~seen, -math.inf)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self._join(mixed), (k[:, :, -self.span :], v[:, :, -self.span :])

    def step(self, values: Tensor, kept: Kept) -> tuple[Tensor, Kept]:
        """Attend from one more frame ``[B, 1, width]`` to those that were kept."""
        q, k, v = self._split(values)
        keys, content = (
            torch.cat([old, new], 2)[:, :, -self.span :]
            for old, new in zip(kept, (k, v), strict=True)
        )
        bias = self.lag_bias[:, : keys.shape[2]].flip(1)[:, None]
        return self._join(scaled_dot_product_attention(q, keys, content, attn_mask=bias)), (
            keys,
            content,
        )

    def _split(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(values).chunk(3, -1)
        heads = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        q, k, v = heads
        return q, k, v

    def _join(self, mixed: Tensor) -> Tensor:
        return self.out(mixed.transpose(1, 2).flatten(2))


class CausalBlock(nn.Module):
    """Attention, then a layer of each frame by itself, both added to their input (pre-norm).

    Args:
        width: Channels.
        heads: Heads of attention.
        span: Frames in view.
        hidden: Hidden channels of the second part.

    Shapes:
        - input and output ``[B, T, width]``
    """

    def __init__(self, width: int, heads: int, span: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm, self.frame_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, span)
        self.frame = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, values: Tensor) -> Tensor:
        """Whole series."""
        return self.begin(values)[0]

    def begin(self, values: Tensor) -> tuple[Tensor, Kept]:
        """Whole series, and what to keep of them."""
        mixed, kept = self.attention.begin(self.attention_norm(values))
        return self._finish(values + mixed), kept

    def step(self, values: Tensor, kept: Kept) -> tuple[Tensor, Kept]:
        """One more frame ``[B, 1, width]``."""
        mixed, kept = self.attention.step(self.attention_norm(values), kept)
        return self._finish(values + mixed), kept

    def _finish(self, values: Tensor) -> Tensor:
        return values + self.frame(self.frame_norm(values))
