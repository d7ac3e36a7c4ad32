"""Artefacts of a known cell from PyTorch's recurrent layers `nn.RNN`, `nn.GRU` and `nn.LSTM`.

They can be traced like any module, but a known cell steps faster and reads prompts by the prefill graph.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from elman_export.artefacts.artefact import Artefact
from elman_export.errors import ModuleError
from elman_export.exporting.cells import StepGraphs
from elman_export.exporting.reference import reference_step
from elman_export.exporting.torch_step import torch_step
from elman_export.exporting.verify import verify
from elman_format import Metadata
from elman_format.metadata import STATES

_CELLS = {"RNN_TANH": "elman", "GRU": "gru", "LSTM": "lstm"}


def export_layers(
    layers: nn.RNNBase, output: nn.Linear, metadata: Metadata, *, embedding: nn.Embedding | None = None
) -> Artefact:
    """Turn a character model of PyTorch's own layers into an artefact with both graphs.

    The model is `output(layers(embedding(char)))`; without an embedding, characters enter as one-hot vectors. The
    artefact is verified against it, in float32, before it is returned; the modules are not changed.

    Args:
        layers: Any number of them, with biases or without, `batch_first` or not.
        output: From the last layer's h [H] to logits [V].
        metadata: Name, version and vocabulary; the cell, its sizes and the parameters are filled in here.
        embedding: From ids to what the first layer reads, [E].

    Raises:
        ModuleError: No known cell computes the same, or the parts do not fit each other.
        DifferenceError: The artefact does not compute what the modules compute.
    """
    _check_kinds(layers, output, embedding)
    _check_sizes(layers, output, embedding, metadata.vocabulary_size)
    network = (
        copy.deepcopy(_Network(layers, output, embedding)).float().cpu()
    )  # whatever precision and device they have
    cell, weights = _CELLS[layers.mode], _weights(network)
    graphs = StepGraphs(cell, weights)
    metadata = replace(
        metadata,
        cell=cell,
        num_layers=layers.num_layers,
        hidden_size=layers.hidden_size,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
    artefact = Artefact.build(graphs.step(), metadata, graphs.prefill())
    del graphs  # its weights are as large as the file
    verify(artefact, {"PyTorch": torch_step(network), "NumPy, float64": reference_step(cell, weights)}).require()
    return artefact


class _Network(nn.Module):
    """The parts as one step module."""

    def __init__(self, layers: nn.RNNBase, output: nn.Linear, embedding: nn.Embedding | None) -> None:
        super().__init__()
        self.layers, self.output, self.embedding = layers, output, embedding

    def forward(self, char: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """From char [B] and, layer by layer, h (LSTM: h, c) [B, H] to logits [B, V] and the same after it."""
        x = functional.one_hot(char, self.layers.input_size).float() if self.embedding is None else self.embedding(char)
        time = 1 if self.layers.batch_first else 0
        num_kinds = len(STATES[_CELLS[self.layers.mode]])
        before = [torch.stack(state[kind::num_kinds]) for kind in range(num_kinds)]  # PyTorch's: [L, B, H] a kind
        y, after = self.layers(x.unsqueeze(time), tuple(before) if num_kinds > 1 else before[0])
        kinds = after if num_kinds > 1 else (after,)
        return self.output(y.squeeze(time)), *(part for layer in zip(*kinds, strict=True) for part in layer)


def _check_kinds(layers: nn.RNNBase, output: nn.Linear, embedding: nn.Embedding | None) -> None:
    if not isinstance(layers, nn.RNNBase):
        raise ModuleError(
            f"The layers are {type(layers).__name__}: they must be nn.RNN, nn.GRU or nn.LSTM; trace any other module."
        )
    if layers.mode not in _CELLS:
        raise ModuleError("The layers are an nn.RNN with relu: train it with tanh, or trace it as any other module.")
    if layers.bidirectional:
        raise ModuleError("The layers are bidirectional: the characters that follow are unknown to a step.")
    if layers.proj_size:
        raise ModuleError(f"The layers have proj_size={layers.proj_size}: trace them as any other module.")
    if not isinstance(output, nn.Linear):
        raise ModuleError(f"The output is {type(output).__name__}: it must be one nn.Linear; trace any other module.")
    if not isinstance(embedding, nn.Embedding | None):
        raise ModuleError(
            f"The embedding is {type(embedding).__name__}: it must be nn.Embedding; trace any other module."
        )
    if embedding is not None and embedding.max_norm is not None:
        raise ModuleError("The embedding has max_norm, which changes it as it is read: trace it as any other module.")


def _check_sizes(layers: nn.RNNBase, output: nn.Linear, embedding: nn.Embedding | None, vocabulary_size: int) -> None:
    sizes = [("the layers' hidden_size", layers.hidden_size, "the output reads", output.in_features)]
    sizes += [("the vocabulary's size", vocabulary_size, "the output writes", output.out_features)]
    if embedding is None:
        sizes += [("the vocabulary's size", vocabulary_size, "the layers read, one-hot,", layers.input_size)]
    else:
        sizes += [("the vocabulary's size", vocabulary_size, "the embedding reads", embedding.num_embeddings)]
        sizes += [("the embedding_dim", embedding.embedding_dim, "the layers read", layers.input_size)]
    for what, expected, where, actual in sizes:
        if actual != expected:
            raise ModuleError(f"The parts do not fit: {what} is {expected}, but {where} {actual}.")


def _weights(network: _Network) -> dict[str, NDArray[np.float32]]:
    """Weights under the names that `StepGraphs` takes; a missing bias is zeros."""
    layers, output = network.layers, network.output
    tensors: dict[str, Tensor] = {"output.weight": output.weight}
    tensors["output.bias"] = dict(output.named_parameters()).get("bias", torch.zeros(output.out_features))
    if network.embedding is not None:
        tensors["embedding.weight"] = network.embedding.weight
    for layer in range(layers.num_layers):
        for name in ("weight_ih", "weight_hh"):
            tensors[f"layers.{layer}.{name}"] = weight = getattr(layers, f"{name}_l{layer}")
        for name in ("bias_ih", "bias_hh"):
            bias = getattr(layers, f"{name}_l{layer}") if layers.bias else torch.zeros(len(weight))
            tensors[f"layers.{layer}.{name}"] = bias
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}
