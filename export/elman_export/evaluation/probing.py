"""Fitting a probe: a linear classifier of the state (Alain and Bengio 2016, arXiv 1610.01644)."""

import hashlib
import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman_export.artefacts.artefact import Artefact, format_errors
from elman_export.artefacts.runtime import Runtime
from elman_export.artefacts.vocabulary import encode_text
from elman_export.errors import CorpusError
from elman_export.evaluation.states import Ids, states_at
from elman_format import Probe, Vocabulary, check_labels

MIN_TEXTS = 10
HELD_OUT_PERCENT = 20
MAX_NUMBERS = 1 << 28  # of all states together: 1 GiB
_MAX_ITERATIONS = 5000


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and the labels of some of its characters.

    Attributes:
        ids: [T] of the text.
        positions: Indices into `ids`, rising.
        labels: One for each of `positions`.
    """

    ids: Ids
    positions: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelledCorpus:
    """The texts for fitting a probe; `sha256` is the file's."""

    texts: tuple[LabelledText, ...]
    sha256: str


def read_labelled(path: Path, vocabulary: Vocabulary) -> LabelledCorpus:
    """Read JSON lines `{"text": …, "label": …}` or `{"text": …, "labels": […]}`; a repeated line counts once.

    Raises:
        CorpusError: The file cannot be read, or a line is malformed; the message names the line.
    """
    try:
        content = path.read_bytes()
        lines = content.decode().split("\n")
    except OSError as error:
        raise CorpusError(f"Cannot read the labelled texts {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"The labelled texts {path} are not UTF-8 (byte {error.start}): convert them first."
        ) from error
    numbers: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            numbers.setdefault(line, number)
    texts = tuple(_text(f"Line {number} of {path}", line, vocabulary) for line, number in numbers.items())
    return LabelledCorpus(texts, hashlib.sha256(content).hexdigest())


def _text(where: str, line: str, vocabulary: Vocabulary) -> LabelledText:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where} is not JSON: write one object a line.") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise CorpusError(f'{where} lacks "text": write {{"text": "…", "label": "…"}}.')
    text = entry["text"]
    ids = encode_text(vocabulary, text, where)
    match entry:
        case {"label": str(label)} if entry.keys() == {"text", "label"}:
            return LabelledText(ids, (len(ids) - 1,), (label,))
        case {"labels": list(labels)} if entry.keys() == {"text", "labels"}:
            return LabelledText(ids, *_per_character(where, text, labels, is_bytes=vocabulary is None))
        case _:
            raise CorpusError(f'{where} must hold "text" and either "label" or "labels", and nothing else.')


def _per_character(
    where: str, text: str, labels: list[Any], *, is_bytes: bool
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    if len(labels) != len(text):
        raise CorpusError(f"{where} has {len(labels)} labels for {len(text)} characters: give one each, or null.")
    if not all(label is None or isinstance(label, str) for label in labels) or not any(labels):
        raise CorpusError(f"{where} has no label or one that is not a string: give strings, or null for none.")
    ends = accumulate(len(character.encode()) if is_bytes else 1 for character in text)  # the label is on the last byte
    labelled = [(end - 1, label) for end, label in zip(ends, labels, strict=True) if label is not None]
    return tuple(position for position, _ in labelled), tuple(label for _, label in labelled)


def fit_probe(
    artefact: Artefact, corpus: LabelledCorpus, strength: float, advance: Callable[[int], object] = lambda _: None
) -> Probe:
    """Fit a read-out to four fifths of the texts and measure its accuracy on the last fifth.

    Args:
        artefact: Gives the states; it is not changed.
        corpus: The labelled texts.
        strength: Inverse of the L2 penalty on standardised states: scikit-learn's C.
        advance: Called with the number of texts read since the last call.

    Raises:
        CorpusError: Too few texts, a single label, or a label that is only held out.
        ArtefactError: A label that no artefact may hold, or weights that are not finite.
    """
    if len(corpus.texts) < MIN_TEXTS:
        raise CorpusError(f"There are {len(corpus.texts)} labelled texts: fitting needs at least {MIN_TEXTS}.")
    found = sorted({label for text in corpus.texts for label in text.labels})
    if len(found) == 1:
        raise CorpusError(f"Every text has the label {found[0]!r:.80}: a read-out needs at least two.")
    with format_errors():
        labels = check_labels("The labels", found)
    states = _states(artefact, corpus.texts, advance)
    order = np.random.default_rng(0).permutation(len(corpus.texts))
    num_held_out = math.ceil(len(order) * HELD_OUT_PERCENT / 100)
    held_out, training = order[:num_held_out], order[num_held_out:]
    x, y = _stacked(corpus.texts, states, training)
    if missing := sorted(set(labels) - set(y)):
        raise CorpusError(f"The label {missing[0]!r} is on too few texts to fit and to check: add texts with it.")
    weight, bias = _fit(x, y, labels, strength)
    fitted = Probe(labels, weight.astype("<f4").tobytes(), bias.astype("<f4").tobytes())
    x, y = _stacked(corpus.texts, states, held_out)
    accuracy = float((np.array(labels)[predict(fitted, x).argmax(axis=1)] == y).mean())
    record = {
        "corpus_sha256": corpus.sha256,
        "num_texts": len(corpus.texts),
        "num_examples": sum(len(text.labels) for text in corpus.texts) - len(y),
        "num_held_out": len(y),
        "accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / len(y)),
        "majority": Counter(y.tolist()).most_common(1)[0][1] / len(y),
        "strength": strength,
    }
    with format_errors():  # weights that are not finite
        return Probe.from_json("fitted", replace(fitted, record=record).to_json())


def predict(probe: Probe, states: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities [N, L] in nats of the labels, given states [N, S]."""
    weight, bias = (np.frombuffer(numbers, "<f4").astype(np.float64) for numbers in (probe.weight, probe.bias))
    z = states.astype(np.float64) @ weight.reshape(len(bias), -1).T + bias
    z -= z.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return result


def _states(
    artefact: Artefact, texts: Sequence[LabelledText], advance: Callable[[int], object]
) -> list[NDArray[np.float32]]:
    size = sum(math.prod(shape) for shape in artefact.state_shapes)
    if (total := sum(len(text.positions) for text in texts)) * size > MAX_NUMBERS:
        raise CorpusError(
            f"{total:,} labelled characters with states of {size:,} numbers do not fit into memory: "
            f"label at most {MAX_NUMBERS // size:,}, and write null for the others."
        )
    states: list[NDArray[np.float32]] = [np.empty((0, size), np.float32)] * len(texts)
    for index, rows in states_at(Runtime(artefact), [(text.ids, text.positions) for text in texts]):
        states[index] = rows
        advance(1)
    return states


def _stacked(
    texts: Sequence[LabelledText], states: Sequence[NDArray[np.float32]], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    y = np.array(list(chain.from_iterable(texts[index].labels for index in chosen)))
    return np.concatenate([states[index] for index in chosen]), y


def _fit(
    x: NDArray[np.float32], y: NDArray[np.str_], labels: Sequence[str], strength: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight [L, S] and bias [L] for states as they are: the standardisation is folded in."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 — a second to import
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    scaler = StandardScaler().fit(x.astype(np.float64))
    model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS)
    with warnings.catch_warnings(action="ignore"):  # the accuracy shows whether it converged
        model.fit(scaler.transform(x.astype(np.float64)), y)
    assert list(model.classes_) == list(labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # two labels: sigmoid(z) = softmax(-z / 2, z / 2)
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    bias = bias - weight @ scaler.mean_
    return weight.astype(np.float32), bias.astype(np.float32)
