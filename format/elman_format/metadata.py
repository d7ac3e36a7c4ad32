"""What an artefact says about itself, and its encoding in `metadata_props` (docs/artefact.md)."""

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from elman_format.errors import FormatError
from elman_format.evaluation import check_evaluation
from elman_format.names import (
    BYTES,
    NUM_BYTES,
    VERSION,
    Vocabulary,
    check_labels,
    check_name,
    check_vocabulary,
    shown,
    specials_of,
)
from elman_format.probe import Probe
from elman_format.self_check import ARITHMETIC
from elman_format.values import dump_floats, dump_json, load_floats, load_json

FORMAT = "1"
FORMAT_WITH_SPECIALS = "2"  # what older releases must refuse: they would sample specials
CELLS = ("elman", "gru", "lstm", "other")
STATES = {"elman": ("h",), "gru": ("h",), "lstm": ("h", "c")}  # of a layer, in the order of the graph's states
QUANTIZATION = "quantisation"  # the recipe's key, spelled as format 1 spells it

PREFIX = "elman."
PREFILL, DIGEST = "elman.prefill", "elman.digest"
_REQUIRED = frozenset({
    "elman.format", "elman.name", "elman.version", "elman.vocabulary", "elman.cell", "elman.num_layers",
    "elman.hidden_size", "elman.num_parameters", "elman.initial_states", "elman.recipe", "elman.evaluation",
    "elman.exporter",
})  # fmt: skip
SELF_CHECK = "elman.self_check"
_KNOWN = _REQUIRED | {"elman.labels", "elman.probes", SELF_CHECK, PREFILL, DIGEST}
_SIZE = re.compile(r"0|[1-9][0-9]{0,8}")  # fits an int32
_COUNT = re.compile(r"0|[1-9][0-9]{0,14}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

InitialState = tuple[bytes, ...]


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
        vocabulary: Distinct characters in id order, or None for the 256 bytes. A name such as `<pad>` in the place of
            a character is a special: it stands for no text and is never sampled.
        version: `^[a-z0-9][a-z0-9.-]{0,62}$`.
        cell: `elman`, `gru`, `lstm` or `other`.
        num_layers: 0 for the cell `other`, as are the next two where they are not defined.
        hidden_size: Units of one layer.
        num_parameters: The number in the checkpoint, before weights are folded.
        initial_states: Name to one row of each state, flat, little-endian float32. `default` starts new sessions.
        recipe: How it was trained; empty if unknown.
        evaluation: One record for each measurement.
        exporter: Versions of the packages that wrote the file.
        labels: What the logits score instead of the vocabulary; empty: the vocabulary.
        probes: Name to linear read-out of the state.
        self_check: What `self_check.digest` returns on every machine; empty: the arithmetic is the machine's.
    """

    name: str
    vocabulary: Vocabulary
    version: str = "1"
    cell: str = "other"
    num_layers: int = 0
    hidden_size: int = 0
    num_parameters: int = 0
    initial_states: Mapping[str, InitialState] = field(default_factory=dict, repr=False)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Sequence[Mapping[str, Any]] = ()
    exporter: Mapping[str, str] = field(default_factory=versions)
    labels: Sequence[str] = ()
    probes: Mapping[str, Probe] = field(default_factory=dict)
    self_check: str = ""

    @property
    def vocabulary_size(self) -> int:
        """Number of symbols that are read."""
        return NUM_BYTES if self.vocabulary is None else len(self.vocabulary)

    @property
    def specials(self) -> dict[str, int]:
        """Name to id of the symbols that stand for no text."""
        return specials_of(self.vocabulary or ())

    @property
    def output_size(self) -> int:
        """The width of the logits: the number of symbols, or of labels in a tagging model."""
        return len(self.labels) or self.vocabulary_size

    @property
    def is_quantized(self) -> bool:
        """Whether the products are int8: then it differs from its source by about a hundredth."""
        return QUANTIZATION in self.recipe

    def entries(self) -> dict[str, str]:
        """The `metadata_props` entries except the prefill graph and the digest.

        Raises:
            FormatError: JSON cannot hold a value.
        """
        states = {name: [dump_floats(row) for row in rows] for name, rows in self.initial_states.items()}
        vocabulary = BYTES if self.vocabulary is None else list(self.vocabulary)
        entries = {
            "elman.format": FORMAT_WITH_SPECIALS if self.specials else FORMAT,
            "elman.name": self.name,
            "elman.version": self.version,
            "elman.vocabulary": dump_json("elman.vocabulary", vocabulary),
            "elman.cell": self.cell,
            "elman.num_layers": str(self.num_layers),
            "elman.hidden_size": str(self.hidden_size),
            "elman.num_parameters": str(self.num_parameters),
            "elman.initial_states": dump_json("elman.initial_states", states),
            "elman.recipe": dump_json("elman.recipe", dict(self.recipe)),
            "elman.evaluation": dump_json("elman.evaluation", [dict(record) for record in self.evaluation]),
            "elman.exporter": dump_json("elman.exporter", dict(self.exporter)),
        }
        if self.labels:
            entries["elman.labels"] = dump_json("elman.labels", list(self.labels))
        if self.probes:
            probes = {name: probe.to_json() for name, probe in self.probes.items()}
            entries["elman.probes"] = dump_json("elman.probes", probes)
        if self.self_check:
            entries[SELF_CHECK] = dump_json(SELF_CHECK, {"arithmetic": ARITHMETIC, "sha256": self.self_check})
        return entries

    @classmethod
    def from_entries(cls, entries: Mapping[str, str]) -> "Metadata":
        """Read and check the entries that `entries` writes.

        Raises:
            FormatError: A key is missing or unknown, or its value violates the format.
        """
        _check_keys(entries)
        return cls(
            name=check_name("elman.name", entries["elman.name"]),
            vocabulary=_vocabulary(entries),
            version=_matching(VERSION, entries, "elman.version"),
            cell=_cell(entries),
            num_layers=int(_matching(_SIZE, entries, "elman.num_layers")),
            hidden_size=int(_matching(_SIZE, entries, "elman.hidden_size")),
            num_parameters=int(_matching(_COUNT, entries, "elman.num_parameters")),
            initial_states=_initial_states(entries),
            recipe=load_json("elman.recipe", entries["elman.recipe"], dict),
            evaluation=check_evaluation(load_json("elman.evaluation", entries["elman.evaluation"], list)),
            exporter=load_json("elman.exporter", entries["elman.exporter"], dict),
            labels=_labels(entries),
            probes=_probes(entries),
            self_check=_self_check(entries),
        )


def _check_keys(entries: Mapping[str, str]) -> None:
    version = entries.get("elman.format")
    if version not in (FORMAT, FORMAT_WITH_SPECIALS):
        raise FormatError(
            f"elman.format is {shown(version)}, this release reads {FORMAT!r} and {FORMAT_WITH_SPECIALS!r}: "
            "export it with this release."
        )
    if missing := sorted(_REQUIRED - entries.keys()):
        raise FormatError(f"The metadata {', '.join(missing)} is missing: export it again.")
    if unknown := sorted(key for key in entries if key.startswith(PREFIX) and key not in _KNOWN):
        raise FormatError(f"The metadata key {shown(unknown[0])} is unknown: use the release that wrote it.")


def _vocabulary(entries: Mapping[str, str]) -> Vocabulary:
    symbols = load_json("elman.vocabulary", entries["elman.vocabulary"], (list, str))
    vocabulary = None if symbols == BYTES else check_vocabulary(symbols)
    if specials_of(vocabulary or ()) and entries["elman.format"] != FORMAT_WITH_SPECIALS:
        raise FormatError(f"A vocabulary with specials needs elman.format {FORMAT_WITH_SPECIALS!r}: export it again.")
    return vocabulary


def _cell(entries: Mapping[str, str]) -> str:
    cell = entries["elman.cell"]
    if cell not in CELLS:
        raise FormatError(f"elman.cell is {shown(cell)}: it must be one of {', '.join(CELLS)}.")
    return cell


def _labels(entries: Mapping[str, str]) -> tuple[str, ...]:
    if "elman.labels" not in entries:
        return ()
    return check_labels("The elman.labels", load_json("elman.labels", entries["elman.labels"], list))


def _probes(entries: Mapping[str, str]) -> dict[str, Probe]:
    values = load_json("elman.probes", entries.get("elman.probes", "{}"), dict)
    return {name: Probe.from_json(name, values[name]) for name in sorted(values)}


def _self_check(entries: Mapping[str, str]) -> str:
    if SELF_CHECK not in entries:
        return ""
    value = load_json(SELF_CHECK, entries[SELF_CHECK], dict)
    if value.get("arithmetic") != ARITHMETIC:
        raise FormatError(
            f"The {SELF_CHECK} is of the arithmetic {shown(value.get('arithmetic'))}, this release computes "
            f"{ARITHMETIC!r}: use the release that wrote it."
        )
    sha256 = value.get("sha256")
    if value.keys() != {"arithmetic", "sha256"} or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise FormatError(f"The {SELF_CHECK} must hold arithmetic and sha256, 64 hex digits: quantize it again.")
    return sha256


def _initial_states(entries: Mapping[str, str]) -> dict[str, InitialState]:
    states = {}
    for name, rows in load_json("elman.initial_states", entries["elman.initial_states"], dict).items():
        check_name("The initial state's name", name)
        what = f"The initial state {name!r}"
        if not isinstance(rows, list):
            raise FormatError(f"{what} is not a list of base64 float32 rows: export it again.")
        states[name] = tuple(load_floats(what, row) for row in rows)
    return states


def _matching(pattern: re.Pattern[str], entries: Mapping[str, str], key: str) -> str:
    if not pattern.fullmatch(entries[key]):
        raise FormatError(f"{key} is {shown(entries[key])}: it must match ^{pattern.pattern}$.")
    return entries[key]
