"""From a module to an artefact, by torch's exporter."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from elman_export.artefacts.artefact import Artefact
from elman_export.artefacts.graph import graphs
from elman_export.errors import ModuleError
from elman_export.exporting.cells import IR_VERSION, OPSET, value_info
from elman_export.exporting.torch_step import reason
from elman_export.tracing.diagnosis import Specializations, place
from elman_export.tracing.rewrite import rewrite
from elman_export.tracing.signature import NUM_ROWS, Adapter, describe
from elman_export.tracing.source import Source
from elman_format import Metadata

_LOG = logging.getLogger("elman_export")
_OPERATOR = re.compile(r"Error when translating node .*target=torch\.ops\.(aten\.\w+)")
_MAX_ERROR = 1e-3  # of the sum of a row of probabilities


def trace_module(source: Source, metadata: Metadata) -> Artefact:
    """Turn a module into an artefact.

    Args:
        source: The module; it is put into evaluation mode.
        metadata: Name, version, vocabulary and labels; the parameters are counted here, and a state that is
            not zero is recorded as the initial state `default`.

    Raises:
        ModuleError: It breaks the convention, or torch cannot trace it for any number of rows.
    """
    source.module.eval()
    for num_rows in (1, NUM_ROWS):
        _try(source, num_rows, metadata)
    state = source.state
    initial = tuple(part.numpy().astype("<f4").tobytes() for part in state)
    return Artefact.build(
        _clean(_export(source), [list(part.shape[1:]) for part in state], metadata.output_size),
        replace(
            metadata,
            num_parameters=sum(parameter.numel() for parameter in source.module.parameters()),
            initial_states={"default": initial} if any(part.any() for part in state) else {},
        ),
    )


def _try(source: Source, num_rows: int, metadata: Metadata) -> None:
    """Run the module and check its outputs."""
    example = source.example(num_rows)
    num_states = len(example) - 1
    try:
        with torch.inference_mode():
            outputs = source.step(*example)
    except TypeError as error:
        if str(error).startswith("forward returned"):
            raise ModuleError(
                f"{error}: it must return a tuple, logits and as many next states as it is given, {1 + num_states} "
                "values in all."
            ) from error
        raise _failure(error, num_rows, num_states) from error
    except Exception as error:  # the user's code may raise anything
        raise _failure(error, num_rows, num_states) from error
    names = ["logits", *(f"next state {index}" for index in range(num_states))]
    shapes = [(metadata.output_size,), *(part.shape[1:] for part in example[1:])]
    for name, output, shape in zip(names, outputs, shapes, strict=True):
        expected = f"float32 {[num_rows, *shape]}"
        if describe(output) != expected:
            raise ModuleError(
                f"The {name} are {describe(output)} for {num_rows} rows, must be {expected}: "
                f"there are {metadata.output_size} {'labels' if metadata.labels else 'symbols in the vocabulary'}, "
                "and a state keeps its shape."
            )
    if num_rows == 1 and _are_probabilities(outputs[0]):
        _LOG.warning("The logits of the module sum to 1: it seems to return probabilities. Return what softmax takes.")


def _failure(error: Exception, num_rows: int, num_states: int) -> ModuleError:
    return ModuleError(
        f"forward failed with {reason(error)}{place(error)} for {num_rows} rows and {num_states} "
        "states: it is called as forward(char, *state), with any number of rows."
    )


def _are_probabilities(logits: Tensor) -> bool:
    return bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < _MAX_ERROR).all())


def _export(source: Source) -> onnx.ModelProto:
    step = Adapter(rewrite(source.module), source.template, source.signature).eval()
    example = source.example(NUM_ROWS)
    num_states = len(example) - 1
    try:
        with _silence():
            program = torch.onnx.export(
                step,
                example,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["char", *(f"state_{i}" for i in range(num_states))],
                output_names=["logits", *(f"next_state_{i}" for i in range(num_states))],
                dynamic_shapes=_free_rows(num_states),
            )
    except Exception as error:  # what it raises differs from release to release
        raise _untraceable(error.__cause__ or error) from error
    assert program is not None  # it is with dynamo=True
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in program.model_proto.graph.input):
        raise _fixed(step, example)
    return program.model_proto


def _free_rows(num_states: int) -> Any:
    batch = {0: torch.export.Dim("batch")}
    return batch, tuple(batch for _ in range(num_states))


def _untraceable(error: BaseException) -> ModuleError:
    first = str(error).strip().partition("\n")[0]
    if operator := _OPERATOR.search(first):
        return ModuleError(
            f"ONNX has no operator for {operator[1]}: compute it once in build, or with other operators of torch."
        )
    return ModuleError(
        f"torch cannot trace the module, {type(error).__name__} ({first}){place(error)}: compute with tensors only "
        "(torch.where instead of `if`)."
    )


def _fixed(step: nn.Module, example: tuple[Tensor, ...]) -> ModuleError:
    """Trace again to find where the number of rows becomes a constant: torch's exporter keeps that to itself."""
    failure: Exception | None = None
    with _silence(), Specializations(NUM_ROWS) as found:
        try:
            torch.export.export(step, example, dynamic_shapes=_free_rows(len(example) - 1), strict=False)
        except Exception as error:  # noqa: BLE001  the same
            failure = error
    if failure is not None and not found.place and "specialized" not in str(failure):
        return _untraceable(failure)
    return ModuleError(
        f"The module fixes the number of rows at {NUM_ROWS}{found.place}: do not loop over the rows nor turn their "
        "number into an int; use -1, tensor.shape[0] or torch.zeros_like."
    )


def _clean(traced: onnx.ModelProto, states: Sequence[Sequence[int]], output_size: int) -> onnx.ModelProto:
    """The traced graph with the artefact's names and shapes, without the author's file names."""
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
