"""A cell that Elman does not know: minGRU (Feng et al. 2024, arXiv 2410.01201), three layers with residual connections.

    python -m examples.min_gru TEXT runs/min_gru.safetensors
    python -m elman_export trace --module examples.min_gru:build --vocab runs/min_gru.txt -o models/min-gru.onnx
    elman-server --models models

The first command trains and writes the characters next to the weights; `build` reads both, from $MIN_GRU if it is set.
"""

import os
import sys
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

NUM_LAYERS, SIZE = 3, 128
BATCH, LENGTH = 32, 64


class MinGRU(nn.Module):
    """h' = (1 - z) h + z h~, where z and h~ depend on the input only: that makes it minimal."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(SIZE, SIZE)
        self.proposal = nn.Linear(SIZE, SIZE)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """From x and h [B, SIZE] to h'."""
        z = torch.sigmoid(self.gate(x))
        after: Tensor = (1 - z) * h + z * self.proposal(x)
        return after


class Network(nn.Module):
    """The interface of `trace --module`: forward(char, *state) returns (logits, *next_state)."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, SIZE)
        self.layers = nn.ModuleList(MinGRU() for _ in range(NUM_LAYERS))
        self.output = nn.Linear(SIZE, vocabulary_size)

    def forward(self, char: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """From char [B] and a state [B, SIZE] a layer to logits [B, V] and the next states."""
        x = self.embedding(char)
        after = []
        for layer, h in zip(self.layers, state, strict=True):
            after.append(layer(x, h))
            x = x + after[-1]  # the residual connection
        return self.output(x), *after


def initial_state(batch: int) -> tuple[Tensor, ...]:
    """Zeros."""
    return tuple(torch.zeros(batch, SIZE) for _ in range(NUM_LAYERS))


def build() -> tuple[Network, tuple[Tensor, ...]]:
    """The trained network and the initial state of a session, for `trace --module`."""
    weights = Path(os.environ.get("MIN_GRU", "runs/min_gru.safetensors"))
    network = Network(len(weights.with_suffix(".txt").read_bytes().decode()))
    network.load_state_dict(load_file(weights))
    return network, initial_state(1)


def main(text_file: str, weights_file: str, num_steps: str = "2000") -> None:
    """Train on random pieces of a text, one step after the other."""
    torch.manual_seed(0)
    text = Path(text_file).read_bytes().decode()
    characters = sorted(set(text))
    data = torch.tensor([characters.index(character) for character in text])
    network = Network(len(characters))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.003)
    for step in range(int(num_steps)):
        starts = torch.randint(len(data) - LENGTH, (BATCH,))
        pieces = torch.stack([data[start : start + LENGTH + 1] for start in starts], dim=1)  # [T + 1, B]
        state, losses = initial_state(BATCH), []
        for char, target in pairwise(pieces):
            logits, *after = network(char, *state)
            state = tuple(after)
            losses.append(nn.functional.cross_entropy(logits, target))
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: {loss.item():.3f} nats per character")
    weights = Path(weights_file)
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), weights)
    weights.with_suffix(".txt").write_bytes("".join(characters).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
