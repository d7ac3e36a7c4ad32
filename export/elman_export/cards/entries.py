"""The entries of the model card: one for each artefact in a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from elman_export.artefacts.artefact import Artefact, read_artefact
from elman_export.artefacts.inspection import describe
from elman_export.cards.speed import Speed
from elman_export.errors import ArtefactError
from elman_export.evaluation.evaluate import STREAMING, WINDOWS, Evaluation
from elman_export.evaluation.loss import WINDOW, Loss

# Symbols since the state was new: 1, 2 to 3, 4 to 7 … up to a window's last.
RANGES = tuple((2**k, 2 ** (k + 1) - 1) for k in range(WINDOW.bit_length() - 1))
SAME_LOSS = 1e-3  # nats between a record and the same measurement here; another processor may differ by some 1e-6


@dataclass(frozen=True, slots=True)
class Entry:
    """One artefact of the card.

    Attributes:
        facts: As `inspection.describe` gives them.
        weights: Element types of its weights, such as `float32`.
        speed: As measured now.
        evaluation: On the card's text; None without one.
    """

    facts: Mapping[str, Any]
    weights: str
    speed: Speed
    evaluation: Evaluation | None

    @classmethod
    def of(cls, artefact: Artefact, speed: Speed, evaluation: Evaluation | None) -> "Entry":
        """Collect the facts.

        Raises:
            ArtefactError: The artefact's record differs from its loss on the text.
        """
        entry = cls(describe(artefact), _weights(artefact.step), speed, evaluation)
        if evaluation is not None:
            entry._check(evaluation)
        return entry

    @property
    def name(self) -> str:
        """The model's."""
        return str(self.facts["name"])

    @property
    def curve(self) -> Sequence[Sequence[float]]:
        """Rows of epoch, training loss and validation loss; empty if the recipe has none."""
        rows: Sequence[Sequence[float]] = self.facts["recipe"].get("training", {}).get("curve", [])
        return rows

    def record(self, protocol: str) -> Mapping[str, Any] | None:
        """The record of the text that it was trained on; without one, the first of the protocol."""
        own = self.facts["recipe"].get("corpus_sha256")
        records = [record for record in self.facts["evaluation"] if record.get("protocol") == protocol]
        return min(records, key=lambda record: record["corpus_sha256"] != own, default=None)

    def reset_costs(self) -> list[Loss]:
        """The cost of a new state in nats, by the number of symbols since: windows less streaming at the same symbols.

        One for each of `RANGES`; the errors are those of the differences between windows.
        """
        if self.evaluation is None:
            return []
        losses = self.evaluation.losses
        difference = losses[WINDOWS] - losses[STREAMING]
        rows = difference[: len(difference) // WINDOW * WINDOW].reshape(-1, WINDOW)  # [windows, 256]
        costs = []
        for first, last in RANGES:
            means = rows[:, first - 1 : last].mean(axis=1)
            error = float(means.std(ddof=1)) / np.sqrt(len(means))
            costs.append(Loss(float(means.mean()), float(error), len(means) * (last - first + 1)))
        return costs

    def _check(self, evaluation: Evaluation) -> None:
        for measured in evaluation.records():
            for record in self.facts["evaluation"]:
                is_same = all(record.get(key) == measured[key] for key in ("corpus_sha256", "protocol"))
                if is_same and abs(record["nats_per_character"] - measured["nats_per_character"]) > SAME_LOSS:
                    raise ArtefactError(
                        f"{self.name} has the record {record['nats_per_character']:.4f} ({record['protocol']}) but "
                        f"its loss is {measured['nats_per_character']:.4f} on this text: evaluate it again."
                    )


def read_folder(folder: Path) -> list[Artefact]:
    """All `*.onnx` files of a folder, the smallest network first.

    Raises:
        ArtefactError: There is none or one is damaged.
    """
    artefacts = [read_artefact(path) for path in sorted(folder.glob("*.onnx"))]
    if not artefacts:
        raise ArtefactError(f"There is no artefact (*.onnx) in {folder}: name a folder of models.")
    return sorted(artefacts, key=lambda artefact: (artefact.metadata.num_parameters, artefact.metadata.name))


def _weights(step: onnx.ModelProto) -> str:
    """The element types of the matrices."""
    kinds = {tensor.data_type for tensor in step.graph.initializer if len(tensor.dims) > 1}
    return ", ".join(sorted(onnx.helper.tensor_dtype_to_np_dtype(kind).name for kind in kinds))
