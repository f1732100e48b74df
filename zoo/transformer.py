"""Transformers for time series: the published one of a chaotic chain, and a compact causal one."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.layers.attention import CausalBlock
from latticezoo.zoo.neural_sequence import SEQUENCE_DEFAULTS, NeuralSequenceModel
from latticezoo.zoo.registry import register
from latticezoo.zoo.sequence_model import Memory


class CausalTransformer(nn.Module):
    """Embedding of the last few frames, causal blocks, a linear read-out for every frame.

    Args:
        channels: Channels C of the series.
        width: Channels inside.
        blocks: Number of blocks.
        heads: Heads of attention.
        span: Frames that a frame attends to.
        patch: Frames that enter the embedding of a frame: itself and those right before it.
        hidden: Hidden channels of the layers between attentions.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        blocks: int,
        heads: int,
        span: int,
        patch: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.embedding = nn.Linear(patch * channels, width)
        self.blocks = nn.ModuleList(CausalBlock(width, heads, span, hidden) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def read(self, values: Tensor, last: int | None = None) -> tuple[Tensor, Memory]:
        """Whole series ``[B, T, C]``; output of the last frames, and what to remember."""
        padded = pad(values, (0, 0, self.patch - 1, 0))
        hidden = self.embedding(padded.unfold(1, self.patch, 1).flatten(2))
        memory = {"recent": padded[:, padded.shape[1] - self.patch + 1 :]}
        for number, block in enumerate(self.blocks):
            hidden, kept = block.begin(hidden)  # type: ignore[operator]
            memory[f"keys{number}"], memory[f"values{number}"] = kept
        recent = hidden if last is None else hidden[:, -last:]
        return self.head(self.norm(recent)), memory

    def read_next(self, values: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One more frame ``[B, C]``."""
        recent = torch.cat([memory["recent"], values[:, None]], 1)
        hidden = self.embedding(recent.transpose(1, 2).flatten(1))[:, None]
        found = {"recent": recent[:, 1:]}
        for number, block in enumerate(self.blocks):
            kept = (memory[f"keys{number}"], memory[f"values{number}"])
            hidden, (keys, content) = block.step(hidden, kept)  # type: ignore[operator]
            found[f"keys{number}"], found[f"values{number}"] = keys, content
        return self.head(self.norm(hidden[:, 0])), found


class WindowTransformer(nn.Module):
    """The published network: a window of frames in, the next value out (arXiv:2601.19080).

    From the public training script that names the paper: linear embedding, sinusoidal code of the
    position in the window, two post-norm blocks of single-head attention without bias or mask and
    of a layer with tanh, a number for each frame with ReLU, and a perceptron over the window. The
    input is as it is, not standardized. About 6.94 million parameters.

    Args:
        channels: Channels C of the series.
        window: Frames of the window.
        width: Channels inside.
        blocks: Number of blocks.
        hidden: Hidden channels of the layers between attentions.
        read_out: Widths of the perceptron.
    """

    def __init__(
        self,
        channels: int,
        window: int,
        width: int,
        blocks: int,
        hidden: int,
        read_out: tuple[int, int],
    ) -> None:
        super().__init__()
        self.window, self.channels = window, channels
        self.embedding = nn.Linear(channels, width)
        rates = torch.exp(-math.log(1000.0) * torch.arange(0, width, 2) / width)
        angles = 0.05 * torch.arange(window)[:, None] * rates
        code = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]
        self.register_buffer("code", code, persistent=False)
        self.blocks = nn.ModuleList(_PostNormBlock(width, hidden) for _ in range(blocks))
        self.per_frame = nn.Linear(width, channels)
        self.read_out = nn.Sequential(
            nn.Linear(window * channels, read_out[0]),
            nn.ReLU(),
            nn.Linear(read_out[0], read_out[1]),
            nn.ReLU(),
            nn.Linear(read_out[1], channels),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """The next values ``[B, C]`` after windows ``[B, window, C]``."""
        hidden = self.embedding(windows) + self.get_buffer("code")
        for block in self.blocks:
            hidden = block(hidden)
        return self.read_out(torch.relu(self.per_frame(hidden)).flatten(1))


class _PostNormBlock(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 1, bias=False, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.frame = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, width))

    def forward(self, hidden: Tensor) -> Tensor:
        mixed, _ = self.attention(hidden, hidden, hidden, need_weights=False)
        hidden = self.norms[0](hidden + mixed)
        return self.norms[1](hidden + self.frame(hidden))


@register("transformer")
class Transformer(NeuralSequenceModel):
    """Self-attention over the past of a series.

    The preset ``compact`` is causal: it predicts the change after every frame, and keeps keys and
    values in roll-outs. The preset ``paper`` is the published network, which maps a window of 401
    frames to the next value and starts afresh for every frame; missing frames of a window count as
    zero. Both are odd by the mean over the two signs of the series.

    Args:
        task: What to learn: the same global fields one frame later.
        form: ``causal`` or ``window``.
        width: Channels inside.
        blocks: Number of blocks.
        heads: Heads of attention (causal).
        span: Frames in view: those that attention reaches in each block (causal), or the window.
        patch: Last frames that enter the embedding of a frame (causal).
        expansion: Hidden channels between attentions over ``width``.
        read_out: Widths of the perceptron over the window (window).

    Raises:
        InputError: As the base, and for a value out of range.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "compact": {
            **SEQUENCE_DEFAULTS,
            "form": "causal",
            "width": 64,
            "blocks": 3,
            "heads": 4,
            "span": 128,
            "patch": 16,
            "expansion": 4,
            "read_out": [1024, 1408],
            "context": 192,
        },
        "paper": {
            "form": "window",
            "width": 500,
            "blocks": 2,
            "heads": 1,
            "span": 401,
            "expansion": 1536 / 500,
            "noise": 0.0,
            "context": 0,
            "learning_rate": 5e-6,
            "optimizer": "adam",
            "weight_decay": 0.0,
            "ema": 0.0,
        },
    }

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        form: str | None = None,
        width: int | None = None,
        blocks: int | None = None,
        heads: int | None = None,
        span: int | None = None,
        patch: int | None = None,
        expansion: float | None = None,
        read_out: list[int] | None = None,
        **training: Any,
    ) -> None:
        given = {
            "form": form,
            "width": width,
            "blocks": blocks,
            "heads": heads,
            "span": span,
            "patch": patch,
            "expansion": expansion,
            "read_out": read_out,
        }
        super().__init__(task, architecture=given, **training)
        chosen = self.options
        for name in ("width", "blocks", "heads", "span", "patch"):
            if not isinstance(chosen[name], int) or chosen[name] < 1:
                raise InputError(f"{name} is {chosen[name]!r}; it must be a whole number, 1 or up.")
        if chosen["width"] % chosen["heads"]:
            raise InputError(f"heads is {chosen['heads']}; it must divide width {chosen['width']}.")
        hidden = round(chosen["expansion"] * chosen["width"])
        self.network: CausalTransformer | WindowTransformer
        if chosen["form"] == "causal":
            self.network = CausalTransformer(
                self.channels,
                width=chosen["width"],
                blocks=chosen["blocks"],
                heads=chosen["heads"],
                span=chosen["span"],
                patch=chosen["patch"],
                hidden=hidden,
            )
        elif chosen["form"] == "window":
            self.trained_frames = 1
            self.network = WindowTransformer(
                self.channels,
                chosen["span"],
                chosen["width"],
                chosen["blocks"],
                hidden,
                (chosen["read_out"][0], chosen["read_out"][1]),
            )
        else:
            raise InputError(f"form is {chosen['form']!r}; it must be 'causal' or 'window'.")

    def read(self, values: Tensor, last: int | None = None) -> tuple[Tensor, Memory]:
        if isinstance(self.network, CausalTransformer):
            return self.network.read(values, last)
        span, length = self.network.window, values.shape[1]
        count = length if last is None else last
        past = pad(values, (0, 0, max(span - 1 + count - length, 0), 0))[:, -(span - 1 + count) :]
        windows = past.unfold(1, span, 1).transpose(-1, -2)  # [B, count, span, C]
        outputs = torch.stack([self._of_window(windows[:, k]) for k in range(count)], 1)
        return outputs, {"window": windows[:, -1]}

    def read_next(self, values: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        if isinstance(self.network, CausalTransformer):
            return self.network.read_next(values, memory)
        window = torch.cat([memory["window"][:, 1:], values[:, None]], 1)
        return self._of_window(window), {"window": window}

    def _of_window(self, window: Tensor) -> Tensor:
        """The published network gives the value itself, in physical units."""
        scale = torch.cat([self.input_scaling.scale(name) for name in self.widths])
        mean = torch.cat([self.input_scaling.mean(name) for name in self.widths])
        value = (self.network(window * scale + mean) - mean) / scale
        change_mean = torch.cat([self.increments.mean(name) for name in self.widths])
        return (value - window[:, -1] - change_mean) / self._spread
