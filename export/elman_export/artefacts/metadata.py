"""What an artefact says about itself, and its encoding in `metadata_props` (docs/artefact.md)."""

import base64
import binascii
import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman_export.artefacts.read_outs import NAME, Probe, check_labels
from elman_export.artefacts.vocabulary import BYTES, NUM_BYTES, Vocabulary, check_vocabulary
from elman_export.errors import ArtefactError

FORMAT = "1"
CELLS = ("elman", "gru", "lstm", "other")
STATES = {"elman": ("h",), "gru": ("h",), "lstm": ("h", "c")}  # of a layer, in the order of the graph's states
QUANTIZATION = "quantisation"  # the recipe's key, spelled as format 1 spells it

_VERSION = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")
_REQUIRED = frozenset(
    "elman." + key
    for key in (
        "format",
        "name",
        "version",
        "vocabulary",
        "cell",
        "num_layers",
        "hidden_size",
        "num_parameters",
        "initial_states",
        "recipe",
        "evaluation",
        "exporter",
    )
)
_OPTIONAL = frozenset({"elman.prefill", "elman.labels", "elman.probes"})

InitialState = tuple[NDArray[np.float32], ...]


def versions() -> dict[str, str]:
    """The installed versions of the packages that write a file."""
    found = {}
    for package in ("elman", "torch", "onnx", "onnxruntime"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a bare source tree
            found[package] = "unknown"
    return found


@dataclass(frozen=True, slots=True)
class Metadata:
    """What an artefact says about itself.

    Attributes:
        name: `^[a-z0-9][a-z0-9-]{0,62}$`.
        vocabulary: Distinct characters in id order, or None for the 256 bytes.
        version: `^[a-z0-9][a-z0-9.-]{0,62}$`.
        cell: `elman`, `gru`, `lstm` or `other`.
        num_layers: 0 for the cell `other`, as are the next two where they are not defined.
        hidden_size: Units of one layer.
        num_parameters: The number in the checkpoint, before weights are folded.
        initial_states: Name to one flat float32 row per state. `default` starts new sessions.
        recipe: How it was trained; empty if unknown.
        evaluation: One record per measurement.
        exporter: Versions of the packages that wrote the file.
        labels: What the logits score instead of the vocabulary; empty: the vocabulary.
        probes: Name to linear read-out of the state.
    """

    name: str
    vocabulary: Vocabulary
    version: str = "1"
    cell: str = "other"
    num_layers: int = 0
    hidden_size: int = 0
    num_parameters: int = 0
    initial_states: Mapping[str, InitialState] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Sequence[Mapping[str, Any]] = ()
    exporter: Mapping[str, str] = field(default_factory=versions)
    labels: Sequence[str] = ()
    probes: Mapping[str, Probe] = field(default_factory=dict)

    @property
    def vocabulary_size(self) -> int:
        """Number of symbols that are read."""
        return NUM_BYTES if self.vocabulary is None else len(self.vocabulary)

    @property
    def output_size(self) -> int:
        """The width of the logits: the number of symbols, or of labels in a tagging model."""
        return len(self.labels) or self.vocabulary_size

    @property
    def is_quantized(self) -> bool:
        """Whether the products are int8: then it differs from its source by about a hundredth."""
        return QUANTIZATION in self.recipe

    def entries(self) -> dict[str, str]:
        """The `metadata_props` entries except the prefill graph and the digest."""
        initial_states = {
            name: [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
            for name, rows in self.initial_states.items()
        }
        entries = {
            "elman.format": FORMAT,
            "elman.name": self.name,
            "elman.version": self.version,
            "elman.vocabulary": _dump(BYTES if self.vocabulary is None else self.vocabulary),
            "elman.cell": self.cell,
            "elman.num_layers": str(self.num_layers),
            "elman.hidden_size": str(self.hidden_size),
            "elman.num_parameters": str(self.num_parameters),
            "elman.initial_states": _dump(initial_states),
            "elman.recipe": _dump(self.recipe),
            "elman.evaluation": _dump(list(self.evaluation)),
            "elman.exporter": _dump(self.exporter),
        }
        if self.labels:
            entries["elman.labels"] = _dump(list(self.labels))
        if self.probes:
            entries["elman.probes"] = _dump({name: probe.to_json() for name, probe in self.probes.items()})
        return entries

    @classmethod
    def from_entries(cls, entries: Mapping[str, str]) -> "Metadata":
        """Read and check the entries that `entries` writes.

        Raises:
            ArtefactError: A key is missing, unknown, or its value is not what the format allows.
        """
        _check_keys(entries)
        return cls(
            name=_matching(NAME, entries, "elman.name"),
            vocabulary=_vocabulary(entries),
            version=_matching(_VERSION, entries, "elman.version"),
            cell=_cell(entries),
            num_layers=int(_matching(_INTEGER, entries, "elman.num_layers")),
            hidden_size=int(_matching(_INTEGER, entries, "elman.hidden_size")),
            num_parameters=int(_matching(_INTEGER, entries, "elman.num_parameters")),
            initial_states=_initial_states(entries),
            recipe=_load(entries, "elman.recipe", dict),
            evaluation=tuple(_load(entries, "elman.evaluation", list)),
            exporter=_load(entries, "elman.exporter", dict),
            labels=_labels(entries),
            probes=_probes(entries),
        )


def _check_keys(entries: Mapping[str, str]) -> None:
    version = entries.get("elman.format")
    if version != FORMAT:
        raise ArtefactError(
            f"elman.format is {version!r:.80}, this release reads {FORMAT!r}: export it with the matching release."
        )
    if missing := sorted(_REQUIRED - entries.keys()):
        raise ArtefactError(f"{', '.join(missing)} is missing from the metadata: export it again.")
    known = {*_REQUIRED, *_OPTIONAL, "elman.digest"}
    if unknown := sorted(key for key in entries if key.startswith("elman.") and key not in known):
        raise ArtefactError(f"The metadata key {unknown[0]:.80} is unknown: use the release that wrote it.")


def _vocabulary(entries: Mapping[str, str]) -> Vocabulary:
    symbols = _load(entries, "elman.vocabulary", (list, str))
    return None if symbols == BYTES else check_vocabulary(symbols)


def _cell(entries: Mapping[str, str]) -> str:
    cell = entries["elman.cell"]
    if cell not in CELLS:
        raise ArtefactError(f"elman.cell is {cell!r:.80}: it must be one of {', '.join(CELLS)}.")
    return cell


def _labels(entries: Mapping[str, str]) -> tuple[str, ...]:
    if "elman.labels" not in entries:
        return ()
    return check_labels("The elman.labels", _load(entries, "elman.labels", list))


def _probes(entries: Mapping[str, str]) -> dict[str, Probe]:
    if "elman.probes" not in entries:
        return {}
    return {name: Probe.from_json(name, value) for name, value in _load(entries, "elman.probes", dict).items()}


def _initial_states(entries: Mapping[str, str]) -> dict[str, InitialState]:
    states = {}
    for name, rows in _load(entries, "elman.initial_states", dict).items():
        if not NAME.fullmatch(name):
            raise ArtefactError(f"The initial state's name {name!r:.80} must match ^{NAME.pattern}$.")
        try:
            states[name] = tuple(np.frombuffer(base64.b64decode(row, validate=True), "<f4") for row in rows)
        except (TypeError, ValueError, binascii.Error) as error:
            raise ArtefactError(
                f"The initial state {name!r:.80} is not a list of base64 float32 rows: export it again."
            ) from error
        if not all(np.isfinite(row).all() for row in states[name]):
            raise ArtefactError(f"The initial state {name!r:.80} is not finite: use finite numbers.")
    return states


def _matching(pattern: re.Pattern[str], entries: Mapping[str, str], key: str) -> str:
    if not pattern.fullmatch(entries[key]):
        raise ArtefactError(f"{key} is {entries[key]!r:.80}: it must match ^{pattern.pattern}$.")
    return entries[key]


def _load(entries: Mapping[str, str], key: str, kind: type | tuple[type, ...]) -> Any:
    try:
        value = json.loads(entries[key])
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{key} is not JSON: export it again.") from error
    if not isinstance(value, kind):
        raise ArtefactError(f"{key} holds JSON of the wrong type: export it again.")
    return value


def _dump(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ArtefactError("The recipe or a record holds a number that is not finite: leave it out.") from error
