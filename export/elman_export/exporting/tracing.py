"""Tracing any PyTorch module that steps through characters.

The convention: a function without arguments returns `(module, state)`. `state` is a tuple of float32
tensors, each with one row ([1, ...]), that a new session starts from; `module` has

    forward(char, *state) -> (logits, *next_state)

with char [B] int64, every state [B, ...], logits [B, V], or [B, L] over labels, and computes each row
independently of the others.
"""

import contextlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from elman_export.artefacts.artefact import Artefact
from elman_export.artefacts.graph import graphs
from elman_export.artefacts.runtime import Array
from elman_export.errors import ModuleError
from elman_export.exporting.cells import IR_VERSION, OPSET, value_info
from elman_export.exporting.reference import Step
from elman_format import Metadata

# Rows of the example: torch specialises on 0 and 1.
_NUM_ROWS = 3


@dataclass(frozen=True, slots=True)
class Source:
    """A user's module and its initial state of one row."""

    module: nn.Module
    state: tuple[Tensor, ...]

    @classmethod
    def of(cls, result: Any) -> "Source":
        """Check what a user's function returned.

        Raises:
            ModuleError: It is not (module, state).
        """
        if not isinstance(result, tuple) or list(map(type, result[1:])) != [tuple]:
            raise ModuleError(f"Got {_describe(result)}: return (module, state), a tuple of tensors.")
        module, state = result
        if not isinstance(module, nn.Module) or not state:
            raise ModuleError(
                f"Got {_describe(module)} with {len(state)} states: return an nn.Module and at "
                "least one tensor of state."
            )
        for index, part in enumerate(state):
            if not isinstance(part, Tensor) or part.dtype != torch.float32 or part.shape[:1] != (1,):
                raise ModuleError(f"state[{index}] is {_describe(part)}: it must be float32 [1, ...], one row.")
        return cls(module, state)


def load_source(target: str) -> Source:
    """Call the function that `package.module:function` names; the current folder is importable.

    Raises:
        ModuleError: It cannot be imported, fails, or does not return (module, state).
    """
    file, _, function = target.partition(":")
    if not file or not function:
        raise ModuleError(f"{target!r} names no function: write it as my_package.my_file:build.")
    if str(Path.cwd()) not in sys.path:  # `python -m` adds it, the installed command does not
        sys.path.insert(0, str(Path.cwd()))
    try:
        result = getattr(importlib.import_module(file), function)()
    except Exception as error:  # the user's code may raise anything
        raise ModuleError(f"{target} failed with {_reason(error)}: correct that first.") from error
    return Source.of(result)


def trace_module(source: Source, metadata: Metadata) -> Artefact:
    """Turn a module into an artefact.

    Args:
        source: The module; it is put into evaluation mode.
        metadata: Name, version, vocabulary and labels; the parameters are counted here, and a state that is
            not zero is recorded as the initial state `default`.

    Raises:
        ModuleError: It breaks the convention, or torch cannot trace it for any number of rows.
    """
    step = _Step(source.module).eval()
    for num_rows in (1, _NUM_ROWS):
        _try(source, num_rows, metadata)
    states = [list(part.shape[1:]) for part in source.state]
    rows = tuple(part.detach().numpy().astype("<f4").tobytes() for part in source.state)
    return Artefact.build(
        _clean(_export(step, source.state), states, metadata.output_size),
        replace(
            metadata,
            num_parameters=sum(parameter.numel() for parameter in source.module.parameters()),
            initial_states={"default": rows} if any(part.any() for part in source.state) else {},
        ),
    )


def torch_step(module: nn.Module) -> Step:
    """A module as a step over NumPy arrays, in evaluation mode.

    Raises:
        ModuleError: From the step, when the module fails.
    """
    step = _Step(module).eval()

    @torch.inference_mode()
    def run(char: NDArray[np.int64], state: Sequence[Array]) -> tuple[Array, list[Array]]:
        # Copies: module and caller must not change each other's arrays.
        inputs = [torch.tensor(array) for array in (char, *state)]
        try:
            logits, *after = step(*inputs)
        except Exception as error:  # the user's code may raise anything
            raise ModuleError(
                f"forward failed with {_reason(error)} for {len(char)} rows: it must take any number."
            ) from error
        return logits.numpy(), [part.numpy() for part in after]

    return run


def module_steps(source: Source) -> dict[str, Step]:
    """The sources for comparison with an artefact of this module."""
    return {"PyTorch": torch_step(source.module)}


class _Step(nn.Module):
    """Returns a tuple for every module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, char: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.module(char, *state))


def _example(state: Sequence[Tensor], num_rows: int = _NUM_ROWS) -> tuple[Tensor, ...]:
    rows = [part.detach().repeat(num_rows, *(1 for _ in part.shape[1:])) for part in state]
    return torch.zeros(num_rows, dtype=torch.int64), *rows


def _try(source: Source, num_rows: int, metadata: Metadata) -> None:
    """Run the module and check its outputs."""
    try:
        with torch.inference_mode():
            outputs = source.module(*_example(source.state, num_rows))
    except Exception as error:  # the user's code may raise anything
        raise ModuleError(
            f"forward failed with {_reason(error)} for {num_rows} rows and {len(source.state)} "
            "states: it is called as forward(char, *state), with any number of rows."
        ) from error
    if not isinstance(outputs, tuple) or len(outputs) != 1 + len(source.state):
        raise ModuleError(
            f"forward returned {_describe(outputs)}: it must return a tuple, logits and as many "
            f"next states as it is given, {1 + len(source.state)} values in all."
        )
    names = ["logits", *(f"next state {index}" for index in range(len(source.state)))]
    shapes = [(metadata.output_size,), *(part.shape[1:] for part in source.state)]
    for name, output, shape in zip(names, outputs, shapes, strict=True):
        expected = f"float32 {[num_rows, *shape]}"
        if _describe(output) != expected:
            raise ModuleError(
                f"The {name} are {_describe(output)} for {num_rows} rows, must be {expected}: "
                f"there are {metadata.output_size} {'labels' if metadata.labels else 'symbols in the vocabulary'}, "
                "and a state keeps its shape."
            )


def _export(step: _Step, state: Sequence[Tensor]) -> onnx.ModelProto:
    batch = {0: torch.export.Dim("batch")}
    try:
        with _silence():
            program = torch.onnx.export(
                step,
                _example(state),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["char", *(f"state_{i}" for i in range(len(state)))],
                output_names=["logits", *(f"next_state_{i}" for i in range(len(state)))],
                dynamic_shapes=(batch, tuple(batch for _ in state)),
            )
    except Exception as error:  # what it raises differs from release to release
        raise ModuleError(
            f"torch cannot trace the module, {_reason(error.__cause__ or error)}: compute with "
            "tensors only (torch.where instead of `if`), and never fix the number of rows."
        ) from error
    assert program is not None  # it is with dynamo=True
    return program.model_proto


def _clean(traced: onnx.ModelProto, states: Sequence[Sequence[int]], output_size: int) -> onnx.ModelProto:
    """The traced graph with the artefact's names and shapes, without the author's file names."""
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in traced.graph.input):
        raise ModuleError(
            f"The module fixes the number of rows at {_NUM_ROWS}: do not loop over the rows nor "
            "turn their number into an int; use -1 or the size of a tensor."
        )
    for graph in graphs(traced.graph):
        for node in graph.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
    graph = helper.make_graph(
        traced.graph.node,
        "step",
        [
            value_info("char", ["batch"], onnx.TensorProto.INT64),
            *(value_info(f"state_{i}", ["batch", *row]) for i, row in enumerate(states)),
        ],
        [
            value_info("logits", ["batch", output_size]),
            *(value_info(f"next_state_{i}", ["batch", *row]) for i, row in enumerate(states)),
        ],
        traced.graph.initializer,
    )
    return helper.make_model(graph, opset_imports=traced.opset_import, ir_version=min(traced.ir_version, IR_VERSION))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Torch's tracer prints, logs and warns at length; errors are raised as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.disable(level)


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__} ({lines[0]})"
