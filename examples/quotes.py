"""A tagging model: one label for every character that is read, instead of the next character.

It says of each character whether it is plain, a quotation mark, or quoted. The mark that opens and the mark that closes
are the same character, so a letter itself does not show whether it is quoted: the state has to carry that. From the
root:

    python -m elman_export trace --module examples.quotes:build --vocab examples/quotes.vocabulary.json \
        --labels examples/quotes.labels.json -o runs/quotes/quotes.onnx
    elman-server --models runs/quotes
    echo -n 'He said "no" and left.' | elman score -
"""

import json
import random
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
VOCABULARY: list[str] = json.loads((HERE / "quotes.vocabulary.json").read_text(encoding="utf-8"))
LABELS: list[str] = json.loads((HERE / "quotes.labels.json").read_text(encoding="utf-8"))
MARK = '"'
MARK_RATE = 0.1


class Tagger(nn.Module):
    """A GRU whose output layer has one row a label."""

    def __init__(self, hidden_size: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), 8)
        self.cell = nn.GRUCell(8, hidden_size)
        self.output = nn.Linear(hidden_size, len(LABELS))

    def forward(self, char: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Read one character: ids [B] and the state [B, H] to logits over labels [B, L] and the next state."""
        h = self.cell(self.embedding(char), h)
        return self.output(h), h


def tags(text: str) -> list[str]:
    """The right label of each character."""
    labels, is_quoted = [], False
    for character in text:
        is_quoted ^= character == MARK
        labels.append("mark" if character == MARK else "quoted" if is_quoted else "plain")
    return labels


def train(num_steps: int = 250, length: int = 40, num_texts: int = 64) -> Tagger:
    """Train on random characters with marks; takes some seconds."""
    torch.set_num_threads(1)  # the matrices are too small for a second thread
    torch.manual_seed(0)
    dice = random.Random(0)
    module = Tagger()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(num_steps):
        texts = [
            "".join(MARK if dice.random() < MARK_RATE else dice.choice(VOCABULARY) for _ in range(length))
            for _ in range(num_texts)
        ]
        chars = torch.tensor([[VOCABULARY.index(c) for c in text] for text in texts]).t()  # [T, B]
        right = torch.tensor([[LABELS.index(tag) for tag in tags(text)] for text in texts]).t()
        h, logits = torch.zeros(num_texts, module.cell.hidden_size), []
        for char in chars:
            scores, h = module(char, h)
            logits.append(scores)
        loss = functional.cross_entropy(torch.stack(logits).flatten(0, 1), right.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    return module


def build() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """What `trace --module` calls: the module, and the state of one row that texts start from."""
    module = train()
    return module, (torch.zeros(1, module.cell.hidden_size),)
