"""Modules as users write them, right and wrong: functions for `trace --module tests.modules:NAME`."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_CHARACTERS = 65
HIDDEN_SIZE = 16

_Forward = Callable[["Cell", Tensor, Tensor], object]
State = tuple[Tensor, ...]


class Cell(nn.Module):
    """An embedding, an output layer, and in between whatever a test wants."""

    def __init__(self, compute: _Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(NUM_CHARACTERS, HIDDEN_SIZE)
        self.gate = nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE)
        self.output = nn.Linear(HIDDEN_SIZE, NUM_CHARACTERS)
        self.compute = compute
        self.num_calls = 0

    def forward(self, char: Tensor, h: Tensor) -> object:
        """What the test wants."""
        self.num_calls += 1
        return self.compute(self, char, h)


def _build(compute: _Forward, state: Tensor | None = None) -> tuple[nn.Module, State]:
    return Cell(compute), (torch.zeros(1, HIDDEN_SIZE) if state is None else state,)


def min_gru():
    """A minGRU: the gate sees the character alone (arXiv 2410.01201)."""

    def compute(self, char, h):
        x = self.embedding(char)
        z = torch.sigmoid(self.gate(x))
        h = (1 - z) * h + z * torch.tanh(x)
        return self.output(h), h

    return _build(compute)


def learned_start():
    """A plain cell that starts from a state of its own."""
    return _build(_plain, torch.linspace(-0.5, 0.5, HIDDEN_SIZE)[None])


class Torch(nn.Module):
    """A network of PyTorch's own recurrent layers; its states are [B, L, H]."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(NUM_CHARACTERS, HIDDEN_SIZE)
        self.layers = getattr(nn, kind)(HIDDEN_SIZE, HIDDEN_SIZE, num_layers=2)
        self.output = nn.Linear(HIDDEN_SIZE, NUM_CHARACTERS)

    def forward(self, char: Tensor, *state: Tensor) -> State:
        """One step, between the state's layout and PyTorch's [L, B, H]."""
        parts = tuple(part.transpose(0, 1).contiguous() for part in state)
        y, after = self.layers(self.embedding(char)[None], parts[0] if len(parts) == 1 else parts)
        after = after if isinstance(after, tuple) else (after,)
        return self.output(y[0]), *(part.transpose(0, 1) for part in after)


def torch_lstm():
    """PyTorch's LSTM."""
    return Torch("LSTM"), (torch.zeros(1, 2, HIDDEN_SIZE), torch.zeros(1, 2, HIDDEN_SIZE))


class Usual(nn.Module):
    """The network of the tutorials: characters with a time axis, and PyTorch's own states [L, B, H], nested."""

    def __init__(self, kind: str, *, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(NUM_CHARACTERS, HIDDEN_SIZE)
        self.layers = getattr(nn, kind)(HIDDEN_SIZE, HIDDEN_SIZE, num_layers=2, batch_first=batch_first)
        self.output = nn.Linear(HIDDEN_SIZE, NUM_CHARACTERS)

    def forward(self, x: Tensor, hidden: object) -> tuple[Tensor, object]:
        """Logits after every character, and the layers' states."""
        y, hidden = self.layers(self.embedding(x), hidden)
        return self.output(y), hidden


def usual_gru():
    """X [B, T], one tensor of state that is no tuple."""
    return Usual("GRU", batch_first=True), torch.zeros(2, 1, HIDDEN_SIZE)


def usual_lstm():
    """X [T, B], and the pair (h, c)."""
    return Usual("LSTM", batch_first=False), (torch.zeros(2, 1, HIDDEN_SIZE), torch.zeros(2, 1, HIDDEN_SIZE))


def usual_rnn_of_one_layer():
    """A state [1, 1, H]: which axis is the batch shows only in a trial."""
    module = Usual("RNN", batch_first=True)
    module.layers = nn.RNN(HIDDEN_SIZE, HIDDEN_SIZE, batch_first=True)
    return module, (torch.zeros(1, 1, HIDDEN_SIZE),)


class Named(nn.Module):
    """A network whose state is a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(NUM_CHARACTERS, HIDDEN_SIZE)
        self.output = nn.Linear(HIDDEN_SIZE, NUM_CHARACTERS)

    def forward(self, char: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One step; it also counts, and returns the keys in another order."""
        h = self.cell(functional.one_hot(char, NUM_CHARACTERS).float(), state["h"])
        return self.output(h), {"count": state["count"] + 1, "h": h}


def named_states():
    """The state is a dict of tensors."""
    return Named(), {"h": torch.zeros(1, HIDDEN_SIZE), "count": torch.zeros(1, 1)}


def half():
    """Weights and state in 16 bits."""
    module, state = min_gru()
    return module.bfloat16(), tuple(part.bfloat16() for part in state)


def probabilities():
    """What it calls logits are probabilities."""

    def compute(self, char, h):
        logits, h = _plain(self, char, h)
        return torch.softmax(logits, dim=1), h

    return _build(compute)


# What is refused


def projected_lstm():
    """An LSTM whose output is smaller than its cell."""
    module = Usual("LSTM", batch_first=True)
    module.layers = nn.LSTM(HIDDEN_SIZE, HIDDEN_SIZE, num_layers=2, batch_first=True, proj_size=8)
    module.output = nn.Linear(8, NUM_CHARACTERS)
    return module, (torch.zeros(2, 1, 8), torch.zeros(2, 1, HIDDEN_SIZE))


def parametrized():
    """An orthogonal W_hh, which PyTorch computes anew in every step with operators that ONNX lacks."""
    module, state = min_gru()
    nn.utils.parametrizations.orthogonal(module.gate)
    layers = nn.RNN(HIDDEN_SIZE, HIDDEN_SIZE)
    nn.utils.parametrizations.orthogonal(layers, "weight_hh_l0")
    module.layers = layers

    def compute(self, char, h):
        y, h = self.layers(torch.sigmoid(self.gate(self.embedding(char)))[None], h[None])
        return self.output(y[0]), h[0]

    module.compute = compute
    return module, state


def complex_state():
    """A diagonal linear recurrence, whose state turns in the complex plane."""

    def compute(self, char, h):
        turn = torch.polar(torch.full((HIDDEN_SIZE,), 0.9), torch.linspace(0, 3, HIDDEN_SIZE))
        h = turn * h + self.embedding(char)
        return self.output(h.real), h

    return _build(compute, torch.zeros(1, HIDDEN_SIZE, dtype=torch.complex64))


def wide_weights():
    """Large weights, as training makes them: float32 itself is further from the equations than 1e-5."""
    module = Usual("GRU", batch_first=True)
    module.layers = nn.GRU(HIDDEN_SIZE, 256, batch_first=True)
    module.output = nn.Linear(256, NUM_CHARACTERS)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(12)
    return module, torch.zeros(1, 1, 256)


def mean_over_rows():
    """Rows see one another."""

    def compute(self, char, h):
        h = torch.tanh(self.embedding(char) + h.mean(0, keepdim=True))
        return self.output(h), h

    return _build(compute)


def dropout():
    """The same input gives another output each time."""

    def compute(self, char, h):
        h = functional.dropout(torch.tanh(self.embedding(char) + h), 0.5, training=True)
        return self.output(h), h

    return _build(compute)


def memory_of_its_own():
    """The output depends on how often it was called."""
    return _build(lambda self, char, h: (self.num_calls * _plain(self, char, h)[0], h))


def hidden_attribute():
    """The state is an attribute, as in many tutorials."""

    def compute(self, char, h):
        self.hidden = torch.tanh(self.embedding(char) + getattr(self, "hidden", h))
        return self.output(self.hidden), h

    return _build(compute)


def compiled():
    """A module of torch.jit."""
    module, state = min_gru()
    example = (torch.zeros(3, dtype=torch.int64), torch.zeros(3, HIDDEN_SIZE))
    with warnings.catch_warnings(action="ignore"):  # deprecated, but many have one
        return torch.jit.trace(module, example), state


def bidirectional():
    """It reads backwards, too."""
    module = Usual("GRU", batch_first=True)
    module.layers = nn.GRU(HIDDEN_SIZE, HIDDEN_SIZE, batch_first=True, bidirectional=True)
    return module, torch.zeros(2, 1, HIDDEN_SIZE)


def matrix_exponential():
    """An operator that ONNX lacks."""
    return _build(lambda self, char, h: _plain(self, char, h @ torch.linalg.matrix_exp(self.gate.weight)))


def data_dependent():
    """Control flow depends on a value."""

    def compute(self, char, h):
        return _plain(self, char, h * 2 if h.sum() > 0 else h)

    return _build(compute)


def loop_over_rows():
    """The number of rows is fixed by a Python loop."""

    def compute(self, char, h):
        h = torch.stack([torch.tanh(self.embedding(char)[row] + h[row]) for row in range(len(h))])
        return self.output(h), h

    return _build(compute)


def one_row():
    """The number of rows is fixed at one."""
    return _build(lambda self, char, h: _plain(self, char, h.view(1, HIDDEN_SIZE)))


def squeezed():
    """A single row loses its dimension."""
    return _build(lambda self, char, h: (_plain(self, char, h)[0], torch.tanh(h).squeeze()))


def growing_state():
    """The next state is wider than the state."""
    return _build(lambda self, char, h: (_plain(self, char, h)[0], torch.cat([h, h], 1)))


def wrong_width():
    """The logits are as wide as the state."""
    return _build(lambda _self, _char, h: (h, h))


def no_state_out():
    """Only logits come back."""
    return _build(lambda self, char, h: _plain(self, char, h)[0])


def not_finite():
    """One logit is minus infinity."""
    return _build(lambda self, char, h: (_plain(self, char, h)[0] - torch.inf, h))


def double():
    """The state is float64."""
    return _build(_plain, torch.zeros(1, HIDDEN_SIZE, dtype=torch.float64))


def two_rows():
    """The example state has two rows."""
    return _build(_plain, torch.zeros(2, HIDDEN_SIZE))


def no_state():
    """There is no state at all."""
    return Cell(_plain), ()


def module_alone():
    """The state is forgotten."""
    return Cell(_plain)


def failing():
    """The function itself fails."""
    raise ValueError("the weights are\nnot there")


def interrupted():
    """Ctrl-C comes while it runs."""
    raise KeyboardInterrupt


def _plain(self, char, h):
    h = torch.tanh(self.embedding(char) + self.gate(h))
    return self.output(h), h
