"""The networks of the lesson, written out: Elman, GRU and LSTM over characters.

The equations, the gate order and the two biases are those of ``torch.nn.RNN``, ``GRU`` and ``LSTM``.
``step`` reads one character by these equations; ``read`` reads a whole sequence, for training.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from elman_export.errors import ExportError
from elman_export.training.recurrence import ElmanKernel, GRUKernel, Kernel, LSTMKernel, Precision, product, recur

if TYPE_CHECKING:
    from collections.abc import Iterator

Cell = Literal["elman", "gru", "lstm"]
NUM_BYTES = 256
SIZES = {"num_layers": (1, 64), "hidden_size": (1, 65_536), "embedding_size": (0, 65_536)}


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a network.

    Raises:
        ExportError: The cell is unknown, or a size is out of range.
    """

    cell: Cell
    vocabulary: tuple[str, ...] | None  # characters in id order; None: bytes, 256 symbols
    num_layers: int  # L
    hidden_size: int  # H
    embedding_size: int  # E; 0: the characters enter as one-hot vectors, as in the lesson

    def __post_init__(self) -> None:
        if self.cell not in get_args(Cell):
            raise ExportError(f"Unknown cell {self.cell!r}: choose one of elman, gru, lstm.")
        for name, (low, high) in SIZES.items():
            if not low <= getattr(self, name) <= high:
                raise ExportError(f"{name} must lie between {low} and {high}, got {getattr(self, name)}.")

    @property
    def vocabulary_size(self) -> int:
        """V, the number of symbols."""
        return NUM_BYTES if self.vocabulary is None else len(self.vocabulary)


class Layer(nn.Module):
    """One recurrent layer: its four parameters; a subclass defines the equations."""

    num_gates: ClassVar[int]  # G: how many [H] vectors are computed from x and h
    num_states: ClassVar[int]  # 1 (h), or 2 for the LSTM (h and c)
    kernel: ClassVar[Kernel]  # the same equations with their gradient, for whole sequences

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        rows = self.num_gates * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size))  # [G*H, in]
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden_size))  # [G*H, H]
        self.bias_ih = nn.Parameter(torch.zeros(rows))  # [G*H]
        self.bias_hh = nn.Parameter(torch.zeros(rows))  # [G*H]

    def input_gates(self, x: Tensor, precision: Precision = "float32") -> Tensor:
        """W_ih x + b_ih, for one position or for all of a sequence at once.

        Args:
            x: ``[..., in]``; or ids ``[...]`` of one-hot vectors.
            precision: Of the product.

        Returns:
            ``[..., G*H]``.
        """
        if x.is_floating_point():
            return product(x, self.weight_ih, self.bias_ih, precision)
        # W_ih times a one-hot vector is the column of W_ih that the character picks.
        return functional.embedding(x, self.weight_ih.t()) + self.bias_ih

    @abstractmethod
    def advance(self, gates: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One step in time.

        Args:
            gates: ``[B, G*H]``, the input's share, W_ih x + b_ih.
            state: h, and for the LSTM c, each ``[B, H]``.

        Returns:
            The next state, h first: h is also the layer's output.
        """


class ElmanLayer(Layer):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), all of it in (-1, 1)."""  # Elman 1990, as torch.nn.RNN

    num_gates = 1
    num_states = 1
    kernel = ElmanKernel()

    def advance(self, gates: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One step; the lesson's b_h is the sum of the two biases."""
        (h,) = state
        return (torch.tanh(gates + functional.linear(h, self.weight_hh, self.bias_hh)),)  # [B, H]


class GRULayer(Layer):
    """Gates r, z and candidate n; h' = (1 - z) n + z h."""  # Cho et al. 2014, as torch.nn.GRU

    num_gates = 3
    num_states = 1
    kernel = GRUKernel()

    def advance(self, gates: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One step; r sits outside the product, so that all three gates are one matrix product."""
        (h,) = state
        recurrent = functional.linear(h, self.weight_hh, self.bias_hh)  # [B, 3H]
        size = h.shape[1]
        x_rz, x_n = torch.split(gates, [2 * size, size], dim=1)
        h_rz, h_n = torch.split(recurrent, [2 * size, size], dim=1)
        r, z = torch.sigmoid(x_rz + h_rz).chunk(2, dim=1)  # r: how much of h enters n
        n = torch.tanh(x_n + r * h_n)  # [B, H], the candidate
        return (n + z * (h - n),)  # z: how much of h is kept; (1 - z) n + z h, one product less


class LSTMLayer(Layer):
    """Gates i, f, candidate g, gate o; c' = f c + i g, h' = o tanh(c')."""  # as torch.nn.LSTM

    num_gates = 4
    num_states = 2
    kernel = LSTMKernel()

    def advance(self, gates: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One step; c changes by additions only, so information is kept for many steps."""
        h, c = state
        i, f, g, o = (gates + functional.linear(h, self.weight_hh, self.bias_hh)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)  # [B, H]
        return torch.sigmoid(o) * torch.tanh(c), c


LAYERS: dict[Cell, type[Layer]] = {"elman": ElmanLayer, "gru": GRULayer, "lstm": LSTMLayer}


class Noise:
    """The places where training adds noise to a sequence; this class adds none."""

    def embedding(self, x: Tensor) -> Tensor:
        """``[T, B, E]`` to the same (or ids, without an embedding)."""
        return x

    def hidden(self, x: Tensor) -> Tensor:
        """``[T, B, H]`` to the same, after every layer."""
        return x

    def recurrent(self, weight: Tensor) -> Tensor:
        """``[G*H, H]`` to the same, once a sequence."""
        return weight


SILENCE = Noise()


class CharModel(nn.Module):
    """From a character and the state to logits over the next character and the next state."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        if config.embedding_size:
            # Not the default normal_: on the meta device it loads PyTorch's compiler, seconds for each checkpoint read.
            start = torch.rand(config.vocabulary_size, config.embedding_size)
            self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size, _weight=start)
        first = config.embedding_size or config.vocabulary_size
        inputs = [first] + [size] * (config.num_layers - 1)
        self.layers = nn.ModuleList(LAYERS[config.cell](width, size) for width in inputs)
        self.output = nn.Linear(size, config.vocabulary_size)  # y = W_hy h + b_y

    def initialise(self, generator: torch.Generator) -> None:
        """Initialise all weights at random: an orthogonal W_hh in each gate preserves the norm of h."""
        if self.config.embedding_size:
            nn.init.normal_(self.embedding.weight, std=0.5, generator=generator)
        for layer in self._layers():
            # A one-hot x has one active input; 0.5 gives gates as large as the embedding does.
            is_one_hot = layer is self.layers[0] and not self.config.embedding_size
            bound = 0.5 if is_one_hot else 1 / math.sqrt(layer.weight_ih.shape[1])
            nn.init.uniform_(layer.weight_ih, -bound, bound, generator=generator)
            for gate in layer.weight_hh.chunk(layer.num_gates):
                nn.init.orthogonal_(gate, generator=generator)
        bound = 1 / math.sqrt(self.config.hidden_size)
        nn.init.uniform_(self.output.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.output.bias)

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Zeros, h_{-1} of the lesson: per layer h (LSTM: h, c), each ``[batch, H]``."""
        count = sum(layer.num_states for layer in self._layers())
        return tuple(self.output.weight.new_zeros(batch, self.config.hidden_size) for _ in range(count))

    def step(self, char: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Read one character.

        Args:
            char: ``[B]`` int64 ids.
            state: As ``initial_state`` gives it.

        Returns:
            logits ``[B, V]``, then the next state.
        """
        x = self.embed(char)  # [B, E], or the ids themselves: one-hot
        after: list[Tensor] = []
        for layer, own in self._layers_with(state):
            moved = layer.advance(layer.input_gates(x), *own)
            after += moved
            x = moved[0]  # [B, H]: a layer's h is the next layer's x
        return self.output(x), *after

    forward = step

    def read(
        self, chars: Tensor, *state: Tensor, noise: Noise = SILENCE, precision: Precision = "float32"
    ) -> tuple[Tensor, ...]:
        """Read a sequence, layer by layer: one input product for all positions, then the steps.

        Args:
            chars: ``[T, B]`` int64 ids.
            state: As ``initial_state`` gives it.
            noise: The noise of training.
            precision: Of the products within and between layers.

        Returns:
            logits ``[T, B, V]``, then the state after the last character.
        """
        x = noise.embedding(self.embed(chars))
        after: list[Tensor] = []
        for layer, own in self._layers_with(state):
            gates = layer.input_gates(x, precision)  # [T, B, G*H]
            weight_hh = noise.recurrent(layer.weight_hh)  # thinned in training: DropConnect
            states = recur(layer.kernel, gates, weight_hh, layer.bias_hh, *own, precision=precision)
            after += [part[-1] for part in states]
            x = noise.hidden(states[0])  # [T, B, H]
        return self.output(x), *after

    def embed(self, char: Tensor) -> Tensor:
        """``[...]`` ids to ``[..., E]``; without an embedding the ids stay, as one-hot vectors."""
        return self.embedding(char) if self.config.embedding_size else char

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def _layers_with(self, state: tuple[Tensor, ...]) -> Iterator[tuple[Layer, tuple[Tensor, ...]]]:
        """Each layer with its part of the state."""
        remaining = iter(state)
        for layer in self._layers():
            yield layer, tuple(islice(remaining, layer.num_states))
