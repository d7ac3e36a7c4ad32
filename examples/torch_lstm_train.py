"""A character model as in the tutorials: nn.Embedding, nn.LSTM, nn.Linear. Nothing here knows Elman.

    python -m examples.torch_lstm_train TEXT lstm.pt

trains for some minutes and saves the usual state_dict. torch_lstm_export.py makes it a model that Elman serves.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

BATCH, LENGTH = 32, 64


class CharLSTM(nn.Module):
    """Ids [B, T] to logits [B, T, V]."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, 32)
        self.lstm = nn.LSTM(32, 128, num_layers=2, batch_first=True, dropout=0.2)
        self.fc = nn.Linear(128, vocabulary_size)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the character after each character."""
        y, _ = self.lstm(self.embedding(x))
        logits: Tensor = self.fc(y)
        return logits


def main(text_file: str, weights_file: str, num_steps: str = "3000") -> None:
    """Train on random pieces of the text."""
    torch.manual_seed(0)
    text = Path(text_file).read_text()
    ids = {character: index for index, character in enumerate(sorted(set(text)))}
    data = torch.tensor([ids[character] for character in text])
    model = CharLSTM(len(ids))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    for step in range(int(num_steps)):
        starts = torch.randint(len(data) - LENGTH, (BATCH,))
        pieces = torch.stack([data[start : start + LENGTH + 1] for start in starts])
        loss = nn.functional.cross_entropy(model(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: {loss.item():.3f} nats per character")
    torch.save(model.state_dict(), weights_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
