"""The SRDTrans network: 3-D convolutions that squeeze time, a transformer, and back (sheet C 3.2)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Network
from rtdenoise.methods.srdtrans.transformer import Transformer

FRAMES, WIDTHS, EMBED, HEADS, HIDDEN = 128, "8 16 32 64", 128, 8, 512
"""Frames of a block, maps of the encoders, width of a token, attention heads, hidden width of an MLP (sheet C 3.2)."""
DROP = 0.1
"""Dropout of attention, and of what the time attention gives, in training (sheet C 3.2)."""
SLOPE = 0.1
"""Of every leaky ReLU (sheet C 3.2)."""
FINALS = ("leaky", "linear")


class Encoder(nn.Module):
    """`(B, a, T, Y, X)` -> `(B, b, T / 2, Y, X)`, and the maps before the halving for the decoder."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = max(inputs, outputs // 2)
        self.conv1, self.conv2 = conv3(inputs, middle), conv3(middle, outputs)
        self.down = nn.Conv3d(outputs, outputs, 3, stride=(2, 1, 1), padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        skip = active(self.conv2(active(self.conv1(x))))
        return self.down(skip), skip


class Decoder(nn.Module):
    """`(B, a, T / 2, Y, X)` and the encoder's maps of twice the frames -> `(B, b, T, Y, X)`, before the last
    activation.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(inputs, inputs, (4, 3, 3), stride=(2, 1, 1), padding=1)
        self.conv1, self.conv2 = conv3(inputs, outputs), conv3(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """See the class."""
        return self.conv2(active(self.conv1(self.up(x) + skip)))  # type: ignore[no-any-return]


class SrdTransNetwork(Network):
    """SRDTrans (Nat. Comput. Sci. 2023, s43588-023-00568-2): T frames in, T out; 1,801,061 parameters by default.

    frames: T, a multiple of 2 per encoder.  widths: maps of each encoder, as text; every one halves time and none
    halves space.  embed, heads, hidden: of the transformer.  drop: see `DROP`.  final: what follows the last
    convolution; `leaky`, as published, shrinks negative output to a tenth, and with it everything darker than the mean
    of the movie; `linear` is nothing, and learns faster: in a short trial of the recipe's task on few movies it gained
    15.0 and 7.6 dB (0 and 10 dB in) after 32 steps, `leaky` 14.7 and 6.4 dB after 100.
    All T come out; `hop` is the central half that the authors keep (sheet C 3.3). Attention windows begin at the upper
    left corner, so the output depends on the position modulo 7.
    Raises ConfigError for facts of which no network can be made.
    """

    def __init__(
        self,
        frames: int = FRAMES,
        widths: str = WIDTHS,
        embed: int = EMBED,
        heads: int = HEADS,
        hidden: int = HIDDEN,
        drop: float = DROP,
        final: str = "leaky",
    ) -> None:
        super().__init__()
        maps = _maps(widths)
        tokens = _tokens(frames, len(maps))
        _check(embed, heads, hidden, drop, final)
        self.window = WindowSpec(frames, range(frames), hop=frames // 2)
        self.facts = {"frames": frames, "widths": widths, "embed": embed, "heads": heads, "hidden": hidden}
        self.facts |= {"drop": drop, "final": final}
        self.final = final
        self.encoders = nn.ModuleList([Encoder(a, b) for a, b in pairwise([1, *maps])])
        self.into, self.out_of = conv3(maps[-1], embed), conv3(embed, maps[-1])
        self.transformer = Transformer(tokens, embed, heads, hidden, drop)
        self.decoders = nn.ModuleList([Decoder(a, b) for a, b in pairwise([*reversed(maps), 1])])
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # a third faster in bfloat16

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        x, skips = frames.unsqueeze(1), []
        for encoder in self.encoders:
            x, skip = encoder(x)
            skips.append(skip)
        x = active(self._few(self.out_of, self.transformer(active(self._few(self.into, x)))))
        for decoder in self.decoders:
            last = decoder is self.decoders[-1]
            x = decoder(x, skips.pop())
            x = x if last and self.final == "linear" else active(x)
        return x.squeeze(1)

    def _few(self, conv: nn.Conv3d, x: Tensor) -> Tensor:
        """A convolution over the few points in time that are left, in float32 while training.

        On CPUs with bfloat16 the gradients of these weights come out wrong, up to infinity (torch 2.13).
        """
        if not self.training:
            return conv(x)  # type: ignore[no-any-return]
        with torch.autocast(x.device.type, enabled=False):
            return conv(x.float())  # type: ignore[no-any-return]


def conv3(inputs: int, outputs: int) -> nn.Conv3d:
    """3 x 3 x 3, zeros beyond the block."""
    return nn.Conv3d(inputs, outputs, 3, padding=1)


def active(x: Tensor) -> Tensor:
    """Leaky ReLU; the maps before it are not kept."""
    return nn.functional.leaky_relu(x, SLOPE, inplace=True)


def _maps(widths: str) -> list[int]:
    try:
        maps = [int(word) for word in str(widths).split()]
    except ValueError:
        maps = []
    if not maps or min(maps) < 1:
        raise ConfigError(f'SRDTrans takes widths as positive numbers, like "8 16 32 64", not {widths!r}')
    return maps


def _tokens(frames: int, levels: int) -> int:
    halved: int = 2**levels
    tokens, rest = divmod(frames, halved)
    if tokens < 1 or rest:
        raise ConfigError(f"SRDTrans halves time once per width: frames must be a multiple of {halved}, got {frames}")
    return tokens


def _check(embed: int, heads: int, hidden: int, drop: float, final: str) -> None:
    if heads < 1 or embed < heads or embed % heads or hidden < 1:
        raise ConfigError(f"SRDTrans needs hidden of at least 1 and embed that {heads} heads can share, got {embed}")
    if not 0 <= drop < 1 or final not in FINALS:
        raise ConfigError(f"SRDTrans takes drop from 0 to 1 and final {' or '.join(FINALS)}, got {drop} and {final!r}")
