"""The model card as Markdown."""

import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from elman_export.cards.entries import RANGES, Entry
from elman_export.evaluation.evaluate import STREAMING, WINDOWS
from elman_export.evaluation.loss import Loss

NOTHING = "-"
NOTICEABLE = 0.01  # nats: about the standard error of a loss on tiny Shakespeare

_HEAD = """\
# The models, side by side

Written by `python -m elman_export card`; `make card` updates it. Losses are in nats per character, with their
standard errors; speeds in characters a second.
"""
_NOTES = """\
- Losses are those of the artefacts themselves, by `evaluate`, on the last 10 % of the text. Checkpoints and settings
  may have been selected on it, as is the custom with published figures; so both halves are given.
- Speeds are of the bare graph under onnxruntime with one thread of this machine ({processor}); a server adds its own
  work. They were measured when this page was written. Everything else repeats.
"""
_COUNTING = """\
- A Kneser-Ney 5-gram model, counted in the first 90 % of the text, loses {nats:.4f} ± {error:.4f}.
"""
_PICTURE = """\
![The loss while training, and what a new state costs]({picture})
"""
_GATES = """\
## What gates are good for

How much of what a network read long ago does it use? Take its state away in the middle of the text, and see how much
more the next characters cost it than if it had kept the state. Both losses are of the same characters, so nothing else
differs. In nats per character, by how many characters were read since:

{table}

More than {noticeable} nats (by two standard errors) are missed {reach}.

An Elman network learns through h' = tanh(W x + W_hh h + b). The gradient that comes back over n characters is a product
of n factors diag(1 - h'²) W_hh; nearly all of them shrink it, so it vanishes with n, and what is further back is
not learned. A GRU carries its state by h' = (1 - z) n + z h, an LSTM its cell by c' = f c + i g: on that path each
factor is the gate itself, z or f, which the network can hold near 1 for as long as it pays. There the gradient
survives, and so does the memory. Two things to bear in mind: training cuts every gradient off after some 64 characters
(`length` in the recipes), and the networks differ in size as well, so not all of the difference is the gates'.
"""
_IDENTITY = """\
## Identity

Sessions are pinned to these digests.

{table}
"""


def render(entries: Sequence[Entry], picture: str | None) -> str:
    """The whole page.

    Args:
        entries: The models, in the order of the columns.
        picture: The name of the picture beside the page; None without one.
    """
    names = [f"`{entry.name}`" for entry in entries]
    facts = [[label, *map(fact, entries)] for label, fact in _FACTS]
    digests = [[name, f"`{entry.facts['digest']}`"] for name, entry in zip(names, entries, strict=True)]
    notes = _NOTES.format(processor=_processor()) + _counting(entries)
    return "\n".join([
        _HEAD,
        _table(["", *names], facts) + "\n",
        notes,
        *([_PICTURE.format(picture=picture)] if picture else []),
        *([_gates(entries)] if entries[0].evaluation else []),
        _IDENTITY.format(table=_table(["", "digest"], digests)),
    ])  # fmt: skip


def _counting(entries: Sequence[Entry]) -> str:
    evaluation = entries[0].evaluation
    if evaluation is None or evaluation.counting is None:
        return ""
    loss = evaluation.loss(evaluation.counting)
    return _COUNTING.format(nats=loss.nats, error=loss.standard_error)


def _gates(entries: Sequence[Entry]) -> str:
    """The comparison of the cells."""
    costs = {entry.name: entry.reset_costs() for entry in entries}
    columns = [f"{first}" if first == last else f"{first} to {last}" for first, last in RANGES]
    rows = [
        [f"`{name}`", *(f"{round(cost.nats, 3) + 0.0:.3f} ± {cost.standard_error:.3f}" for cost in found)]
        for name, found in costs.items()
    ]
    reach = ", ".join(f"{_reach(found)} by `{name}`" for name, found in costs.items())
    return _GATES.format(table=_table(["", *columns], rows), reach=reach, noticeable=NOTICEABLE)


def _reach(costs: Sequence[Loss]) -> str:
    kept = [
        last for (_, last), cost in zip(RANGES, costs, strict=True) if cost.nats - 2 * cost.standard_error > NOTICEABLE
    ]
    return f"up to {max(kept)} characters later" if kept else "nowhere"


def _loss(protocol: str) -> Callable[[Entry], str]:
    def text(entry: Entry) -> str:
        record = entry.record(protocol)
        if record is None:
            return NOTHING
        return f"{record['nats_per_character']:.4f} ± {record['standard_error']:.4f}"

    return text


def _halves(entry: Entry) -> str:
    if entry.evaluation is None:
        return NOTHING
    return ", ".join(f"{half.nats:.4f}" for half in entry.evaluation.halves(entry.evaluation.losses[STREAMING]))


def _network(entry: Entry) -> str:
    facts = entry.facts
    kind = {"elman": "Elman", "gru": "GRU", "lstm": "LSTM"}.get(facts["cell"], facts["cell"])
    return f"{kind} {facts['num_layers']}x{facts['hidden_size']}" if facts["num_layers"] else kind


def _time(key: str) -> Callable[[Entry], str]:
    def text(entry: Entry) -> str:
        seconds = entry.facts["recipe"].get("training", {}).get(key)
        return NOTHING if seconds is None else f"{seconds / 60:.1f} min"

    return text


def _recipe(key: str, form: str = "{}") -> Callable[[Entry], str]:
    def text(entry: Entry) -> str:
        value = entry.facts["recipe"].get(key)
        return NOTHING if value is None else form.format(value)

    return text


def _rate(value: float | None) -> str:
    """Three significant digits: measurements are not more accurate."""
    return NOTHING if value is None else f"{float(f'{value:.3g}'):,.0f}"


# The rows of the table, top to bottom.
_FACTS: tuple[tuple[str, Callable[[Entry], str]], ...] = (
    ("network", _network),
    ("parameters", lambda entry: f"{entry.facts['num_parameters']:,}"),
    ("weights", lambda entry: entry.weights),
    ("file, bytes", lambda entry: f"{entry.facts['file_bytes']:,}"),
    ("state of a session, bytes", lambda entry: f"{entry.facts['state_bytes']:,}"),
    ("loss, streaming", _loss(STREAMING)),
    ("its halves", _halves),
    ("loss, windows of 256", _loss(WINDOWS)),
    ("speed, 1 row", lambda entry: _rate(entry.speed.step)),
    ("speed, 64 rows", lambda entry: _rate(entry.speed.wide_step)),
    ("speed, prefill of 1 row", lambda entry: _rate(entry.speed.prefill)),
    ("training time", _time("seconds")),
    ("time of processors", _time("cpu_seconds")),
    ("epochs", _recipe("epochs", "{:g}")),
    ("seed", _recipe("seed")),
    ("text, SHA-256", _recipe("corpus_sha256", "{:.12}…")),
)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
