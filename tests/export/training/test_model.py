"""The networks against PyTorch's own and against the lesson's equation."""

import pytest
import torch
from torch.nn import functional

from elman_export.errors import ExportError
from elman_export.training.model import Cell, CharModel, ModelConfig

CELLS: tuple[Cell, ...] = ("elman", "gru", "lstm")
REFERENCES = {"elman": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
TIME, BATCH, HIDDEN, LAYERS = 50, 3, 5, 2
VOCABULARY = tuple("abcd")


def make_model(cell: Cell, embedding_size: int) -> CharModel:
    """Two layers of random weights, biases included."""
    generator = torch.Generator().manual_seed(0)
    model = CharModel(ModelConfig(cell, VOCABULARY, LAYERS, HIDDEN, embedding_size)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(generator=generator)
    return model


def make_chars() -> torch.Tensor:
    """Ids ``[TIME, BATCH]``."""
    return torch.randint(0, len(VOCABULARY), (TIME, BATCH), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("embedding_size", [0, 7])
@pytest.mark.parametrize("cell", CELLS)
def test_steps_are_those_of_pytorch(cell: Cell, embedding_size: int):
    """Stepping gives what torch.nn.RNN, GRU and LSTM give with the same weights."""
    model, chars = make_model(cell, embedding_size), make_chars()
    reference = REFERENCES[cell](embedding_size or len(VOCABULARY), HIDDEN, LAYERS).requires_grad_(False)
    for name, parameter in reference.named_parameters():
        kind, _, layer = name.rpartition("_l")
        parameter.copy_(model.get_parameter(f"layers.{layer}.{kind}"))
    x = model.embedding(chars) if embedding_size else functional.one_hot(chars, len(VOCABULARY)).float()
    expected = model.output(reference(x)[0])

    state, actual = model.initial_state(BATCH), []
    for char in chars:
        logits, *after = model(char, *state)
        state = tuple(after)
        actual.append(logits)

    torch.testing.assert_close(torch.stack(actual), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("embedding_size", [0, 7])
@pytest.mark.parametrize("cell", CELLS)
def test_reading_equals_stepping(cell: Cell, embedding_size: int):
    """A sequence read at once gives the logits and the state of single steps."""
    model, chars = make_model(cell, embedding_size), make_chars()
    logits, *state = model.read(chars, *model.initial_state(BATCH))
    stepped = model.initial_state(BATCH)
    for position, char in enumerate(chars):
        step_logits, *after = model.step(char, *stepped)
        stepped = tuple(after)
        torch.testing.assert_close(step_logits, logits[position], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tuple(state), stepped, atol=1e-5, rtol=1e-5)


def test_the_elman_step_is_the_lessons():
    """R1: h' = tanh(W_hh h + W_xh x + b_h), and y = W_hy h' + b_y."""
    model = CharModel(ModelConfig("elman", VOCABULARY, 1, HIDDEN, 0))
    model.initialise(torch.Generator().manual_seed(0))
    layer = model.layers[0]
    h = torch.linspace(-1, 1, HIDDEN)
    x = torch.tensor([0.0, 0.0, 1.0, 0.0])  # "c"
    w_xh, w_hh = layer.get_parameter("weight_ih"), layer.get_parameter("weight_hh")
    b_h = layer.get_parameter("bias_ih") + layer.get_parameter("bias_hh")
    expected = torch.tanh(w_hh @ h + w_xh @ x + b_h)
    logits, after = model.step(torch.tensor([2]), h[None])
    torch.testing.assert_close(after[0], expected)
    torch.testing.assert_close(logits[0], model.output.weight @ expected + model.output.bias)


def test_parameters_have_the_names_of_a_checkpoint():
    """The exporter finds its weights by these names and shapes."""
    model = CharModel(ModelConfig("gru", VOCABULARY, 1, HIDDEN, 7))
    actual = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert actual == {
        "embedding.weight": (4, 7),
        "layers.0.weight_ih": (15, 7),
        "layers.0.weight_hh": (15, 5),
        "layers.0.bias_ih": (15,),
        "layers.0.bias_hh": (15,),
        "output.weight": (4, 5),
        "output.bias": (4,),
    }


def test_the_lstm_has_two_states_a_layer():
    """States come as h_0, c_0, h_1, c_1, all zeros at first."""
    state = CharModel(ModelConfig("lstm", None, 2, HIDDEN, 0)).initial_state(3)
    assert [part.shape for part in state] == [(3, HIDDEN)] * 4
    assert not torch.cat(state).any()


@pytest.mark.parametrize("cell", CELLS)
def test_a_new_recurrent_matrix_keeps_lengths(cell: Cell):
    """W_hh begins orthogonal in every gate."""
    model = CharModel(ModelConfig(cell, VOCABULARY, 1, HIDDEN, 0))
    model.initialise(torch.Generator().manual_seed(0))
    for gate in model.get_parameter("layers.0.weight_hh").split(HIDDEN):
        torch.testing.assert_close(gate @ gate.T, torch.eye(HIDDEN))


@pytest.mark.parametrize(
    ("cell", "sizes"), [("minlstm", (1, 1, 0)), ("gru", (0, 1, 0)), ("gru", (1, 0, 0)), ("gru", (1, 1, -1))]
)
def test_impossible_shapes_are_refused(cell: Cell, sizes: tuple[int, int, int]):
    """An unknown cell or a size out of range is said at once."""
    with pytest.raises(ExportError):
        ModelConfig(cell, None, *sizes)
