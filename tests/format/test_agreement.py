"""What the exporter writes the server serves."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from elman_export.artefacts.artefact import Artefact
from elman_export.errors import ArtefactError
from elman_export.exporting.cells import StepGraphs
from elman_format import Metadata, Probe
from elman_format.metadata import CELLS, STATES
from elman_server.engine.core.model_runner import ModelRunner
from elman_server.grpc.messages.build import from_model
from elman_server.models.artefact import read_artefact
from elman_server.models.registry import describe
from tests.models import random_weights

SIZE, NUM_CHARACTERS = 4, 5
GRAPHS = {
    cell: StepGraphs(cell, random_weights(cell, hidden_size=SIZE, vocabulary_size=NUM_CHARACTERS)) for cell in STATES
}

names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True)
texts = st.text(st.characters(), max_size=8)  # lone surrogates among them
numbers = st.integers(-1, 2**70) | st.floats() | st.booleans()
positive = st.floats(0, 100)
counts = st.integers(0, 2**63 - 1)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
json_values = st.recursive(
    st.none() | numbers | texts, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2)
)


def floats(count: int, of: st.SearchStrategy[float]) -> st.SearchStrategy[bytes]:
    """As many float32 numbers, in bytes."""
    return st.lists(of, min_size=count, max_size=count).map(lambda row: np.array(row, "<f4").tobytes())


def states(cell: str, of: st.SearchStrategy[float], size: int = SIZE) -> st.SearchStrategy[tuple[bytes, ...]]:
    """One row of each state."""
    return st.tuples(*[floats(size, of)] * len(STATES[cell]))


def probes(cell: str, record: st.SearchStrategy[dict[str, Any]], extra: int = 0) -> st.SearchStrategy[Probe]:
    """Probes of the states, or of more numbers."""
    finite, size = st.floats(-1, 1, width=32), SIZE * len(STATES[cell]) + extra
    return st.builds(Probe, st.just(("no", "yes")), floats(2 * size, finite), floats(2, finite), record)


def record(nats: st.SearchStrategy[Any], count: st.SearchStrategy[Any], text: st.SearchStrategy[str]) -> Any:
    """Evaluation records."""
    fields = {
        "corpus_sha256": digests,
        "protocol": text,
        "nats_per_character": nats,
        "standard_error": positive,
        "num_characters": count,
    }
    return st.fixed_dictionaries(fields)


def usual(cell: str) -> dict[str, st.SearchStrategy[Any]]:
    """Fields as users fill them."""
    known = st.fixed_dictionaries({}, optional={"accuracy": st.floats(0, 1), "num_held_out": counts})
    finite = st.floats(-1, 1, width=32)
    return {
        "name": names,
        "vocabulary": st.lists(
            st.characters(codec="utf-8") | st.sampled_from(["<pad>", "[UNK]"]),
            min_size=NUM_CHARACTERS,
            max_size=NUM_CHARACTERS,
            unique=True,
        ).map(tuple),
        "version": names,
        "cell": st.sampled_from([cell, "other"]),
        "num_layers": st.just(1),
        "hidden_size": st.just(SIZE),
        "num_parameters": st.integers(0, 10**15 - 1),
        "initial_states": st.dictionaries(names, states(cell, finite), max_size=2),
        "recipe": st.dictionaries(st.text(max_size=8), st.text(max_size=8) | counts, max_size=2),
        "evaluation": st.lists(record(positive, counts, names), max_size=2).map(tuple),
        "probes": st.dictionaries(names, probes(cell, known), max_size=1),
    }


def odd(cell: str) -> dict[str, st.SearchStrategy[Any]]:
    """Fields that the format may refuse."""
    any_float = st.floats(width=32)
    records = record(positive, counts, names)
    return {
        "name": texts,
        "vocabulary": st.lists(st.characters(), max_size=NUM_CHARACTERS + 1).map(tuple) | st.none(),
        "version": texts,
        "cell": st.sampled_from(CELLS) | texts,
        "num_layers": st.integers(-1, 3),
        "hidden_size": st.integers(-1, 10**12),
        "num_parameters": st.integers(-1, 10**20),
        "initial_states": st.dictionaries(texts, states(cell, any_float, SIZE + 1) | states(cell, any_float)),
        "recipe": st.dictionaries(texts, json_values, max_size=2),
        "evaluation": st.lists(
            record(numbers, numbers, texts) | records.map(lambda known: known | {"comment": "more"}), max_size=2
        ).map(tuple),
        "labels": st.lists(texts, min_size=NUM_CHARACTERS, max_size=NUM_CHARACTERS).map(tuple),
        "probes": st.dictionaries(
            texts, probes(cell, st.dictionaries(st.sampled_from(["accuracy", "num_held_out"]), numbers), extra=1)
        )
        | st.dictionaries(names, probes(cell, st.dictionaries(st.sampled_from(["accuracy", "num_held_out"]), numbers))),
    }


@st.composite
def metadata(draw: st.DrawFn) -> tuple[str, Metadata]:
    """The cell of a graph, and metadata of which at most two fields are odd."""
    cell = draw(st.sampled_from(list(STATES)))
    fields, others = usual(cell), odd(cell)
    chosen = draw(st.sets(st.sampled_from(sorted(others)), max_size=2))
    return cell, Metadata(**draw(st.fixed_dictionaries(fields | {key: others[key] for key in chosen})))


@pytest.mark.timeout(400)  # seconds on an idle machine
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(metadata(), st.sampled_from(["prefill", "step alone"]))
def test_what_the_exporter_writes_the_server_serves(
    tmp_path_factory: Any, generated: tuple[str, Metadata], graphs: str
) -> None:
    """Whatever the metadata: it is refused when it is written, or it is read, loaded and listed by the server."""
    cell, own = generated
    prefill = GRAPHS[cell].prefill() if graphs == "prefill" else None
    try:
        artefact = Artefact.build(GRAPHS[cell].step(), own, prefill)
    except ArtefactError as refused:
        event("refused")
        assert "\n" not in str(refused)  # noqa: PT017 — most are refused, not all
        return
    event("served")
    path = tmp_path_factory.getbasetemp() / "agreement.onnx"
    artefact.save(path)
    read = read_artefact(path)
    model = ModelRunner(read, capacity=1, num_threads=1)
    listed = from_model(describe(read, model.initial_states, model.fingerprint))
    assert (listed.name, listed.version, listed.digest) == (f"models/{own.name}", own.version, artefact.digest)
    assert read.vocabulary.characters == own.vocabulary
    assert [(special.name, special.id) for special in listed.specials] == list(own.specials.items())
    assert dict(read.initial_states) == own.initial_states
    assert list(read.evaluation) == list(own.evaluation)
    assert [probe.name for probe in read.probes] == sorted(own.probes)
