import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from elman_export.artefacts.artefact import Artefact
from elman_export.artefacts.runtime import Runtime
from elman_export.errors import DifferenceError, ModuleError
from elman_export.exporting import from_torch
from elman_export.exporting.from_torch import export_layers
from elman_export.exporting.verify import verify
from elman_format import Metadata
from tests.models import CHARACTERS

SIZE, WIDTH, HIDDEN = len(CHARACTERS), 12, 24
METADATA = Metadata("mine", tuple(CHARACTERS), "3", recipe={"epochs": 2})
KINDS: dict[str, Any] = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Verification by few steps; two threads would wait for each other longer than such small sums take."""
    monkeypatch.setattr(from_torch, "verify", functools.partial(verify, num_steps=50))
    torch.set_num_threads(1)


class Tutorial(nn.Module):
    """The character model of the tutorials."""

    def __init__(
        self, cell: str = "lstm", *, is_one_hot: bool = False, output_bias: bool = True, **options: Any
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = None if is_one_hot else nn.Embedding(SIZE, WIDTH)
        self.layers = KINDS[cell](SIZE if is_one_hot else WIDTH, HIDDEN, **options)
        self.output = nn.Linear(HIDDEN, SIZE, bias=output_bias)

    def forward(self, x: Tensor) -> Tensor:
        """From ids, in the layout that the layers have, to logits."""
        embedded = nn.functional.one_hot(x, SIZE).float() if self.embedding is None else self.embedding(x)
        logits: Tensor = self.output(self.layers(embedded)[0])
        return logits

    def export(self, metadata: Metadata = METADATA) -> Artefact:
        """This model as an artefact."""
        return export_layers(self.layers, self.output, metadata, embedding=self.embedding)


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "batch_first": True, "dropout": 0.5},
        {"is_one_hot": True},
        {"num_layers": 3, "bias": False, "output_bias": False},
    ],
    ids=["tutorial", "one-hot", "no-biases"],
)
@pytest.mark.parametrize("cell", KINDS)
def test_the_artefact_computes_what_pytorch_computes(cell: str, options: dict[str, Any]):
    """Over 1,000 characters, each on its own states, logits stay within 1e-5 of the module's own; so does prefill."""
    model = Tutorial(cell, **options)
    runtime = Runtime(model.export())
    assert model.training  # the modules are left as they are
    model.eval()
    chars = np.random.default_rng(0).integers(0, SIZE, (1000, 3))
    time = 1 if model.layers.batch_first else 0
    with torch.inference_mode():
        expected = model(torch.from_numpy(chars).movedim(0, time)).movedim(time, 0).numpy()

    state = runtime.initial_state(3)
    steps = []
    for char in chars:
        logits, state = runtime.step(char, state)
        steps.append(logits)
    read, _ = runtime.read(chars, runtime.initial_state(3))

    assert np.abs(np.stack(steps) - expected).max() < 1e-5
    assert np.stack(steps).tobytes() == read.tobytes()


def test_the_artefact_says_what_it_is():
    """Cell, sizes and parameters come from the modules, the rest from the caller."""
    model = Tutorial("gru", num_layers=2)
    artefact = model.export()
    metadata = artefact.metadata
    assert (metadata.cell, metadata.num_layers, metadata.hidden_size) == ("gru", 2, HIDDEN)
    assert metadata.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (metadata.name, metadata.version, metadata.recipe) == ("mine", "3", {"epochs": 2})
    assert artefact.prefill is not None


def test_bytes_and_shared_weights():
    """A byte-level model that uses one matrix as embedding and as output counts it once."""
    embedding, layers, output = nn.Embedding(256, HIDDEN), nn.RNN(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 256)
    output.weight = embedding.weight
    artefact = export_layers(layers, output, Metadata("bytes", None), embedding=embedding)
    assert artefact.metadata.num_parameters == 256 * HIDDEN + 256 + 2 * HIDDEN * (HIDDEN + 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layers": nn.LSTMCell(WIDTH, HIDDEN)}, "The layers are LSTMCell"),
        ({"layers": nn.RNN(WIDTH, HIDDEN, nonlinearity="relu")}, "The layers are an nn.RNN with relu"),
        ({"layers": nn.GRU(WIDTH, HIDDEN, bidirectional=True)}, "The layers are bidirectional"),
        ({"layers": nn.LSTM(WIDTH, HIDDEN, proj_size=8)}, "The layers have proj_size=8"),
        ({"layers": nn.LSTM(WIDTH, 7)}, "the layers' hidden_size is 7, but the output reads 24"),
        ({"layers": nn.LSTM(5, HIDDEN)}, "the embedding_dim is 12, but the layers read 5"),
        ({"output": nn.Sequential(nn.Linear(HIDDEN, SIZE))}, "The output is Sequential"),
        ({"output": nn.Linear(HIDDEN, 64)}, "the vocabulary's size is 65, but the output writes 64"),
        ({"embedding": nn.Linear(SIZE, WIDTH)}, "The embedding is Linear"),
        ({"embedding": nn.Embedding(SIZE, WIDTH, max_norm=1)}, "The embedding has max_norm"),
        ({"embedding": nn.Embedding(66, WIDTH)}, "the vocabulary's size is 65, but the embedding reads 66"),
        ({"embedding": None}, "the vocabulary's size is 65, but the layers read, one-hot, 12"),
    ],
)
def test_what_no_known_cell_computes_is_refused(change: dict[str, Any], sentence: str):
    """Each in one sentence that says what was found."""
    model = Tutorial()
    parts = {"layers": model.layers, "output": model.output, "embedding": model.embedding} | change
    with pytest.raises(ModuleError) as caught:
        export_layers(parts["layers"], parts["output"], METADATA, embedding=parts["embedding"])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_precisions_are_converted():
    """Half, bfloat16 and double become float32 in the artefact; the modules keep their own."""
    model = Tutorial()
    expected = export_layers(model.layers, model.output, METADATA, embedding=model.embedding)
    wide = copy.deepcopy(model).double()
    artefact = export_layers(wide.layers, wide.output, METADATA, embedding=wide.embedding)
    assert artefact.digest == expected.digest
    assert wide.output.weight.dtype == torch.float64
    narrow = copy.deepcopy(model).half()
    assert export_layers(narrow.layers, narrow.output, METADATA, embedding=narrow.embedding).metadata.cell == "lstm"


def test_layers_that_do_something_of_their_own_are_found():
    """A subclass that changes the equations is not exported as if it had not."""

    class Halved(nn.GRU):
        def forward(self, *args: Any) -> Any:
            y, h = super().forward(*args)
            return y / 2, h

    model = Tutorial("gru")
    with pytest.raises(DifferenceError):
        export_layers(Halved(WIDTH, HIDDEN), model.output, METADATA, embedding=model.embedding)


def test_weights_that_are_not_finite_are_found():
    """A training that diverged is not exported."""
    model = Tutorial()
    broken = copy.deepcopy(model.output)
    nn.init.constant_(broken.bias, torch.nan)
    with pytest.raises(DifferenceError):
        export_layers(model.layers, broken, METADATA, embedding=model.embedding)
