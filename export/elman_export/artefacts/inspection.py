"""What is inside an artefact, for people and for scripts."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from elman_export.artefacts.artefact import Artefact
from elman_export.artefacts.graph import graphs
from elman_format.names import BYTES


def describe(artefact: Artefact) -> dict[str, Any]:
    """All facts about an artefact as a JSON value; sizes in bytes."""
    metadata = artefact.metadata
    operators = Counter(node.op_type for graph in graphs(artefact.step.graph) for node in graph.node)
    return {
        "name": metadata.name,
        "version": metadata.version,
        "cell": metadata.cell,
        "num_layers": metadata.num_layers,
        "hidden_size": metadata.hidden_size,
        "num_parameters": metadata.num_parameters,
        "vocabulary_size": metadata.vocabulary_size,
        "vocabulary": BYTES if metadata.vocabulary is None else "".join(c for c in metadata.vocabulary if len(c) == 1),
        "specials": metadata.specials,
        "state_shapes": [list(shape) for shape in artefact.state_shapes],
        "state_bytes": sum(4 * math.prod(shape) for shape in artefact.state_shapes),
        "labels": list(metadata.labels),
        "initial_states": sorted(metadata.initial_states),
        "probes": {
            name: {"labels": list(probe.labels), **probe.record} for name, probe in sorted(metadata.probes.items())
        },
        "operators": dict(operators.most_common()),
        "has_prefill": artefact.prefill is not None,
        "file_bytes": len(artefact.data),
        "digest": artefact.digest,
        "exporter": dict(metadata.exporter),
        "recipe": dict(metadata.recipe),
        "evaluation": list(metadata.evaluation),
    }


def render(description: Mapping[str, Any]) -> str:
    """One line for each fact; nested values are printed as JSON."""
    width = max(map(len, description))
    return "\n".join(f"{key:{width}}  {_text(key, value)}" for key, value in description.items())


def _text(key: str, value: Any) -> str:
    if isinstance(value, str) and key != "vocabulary":
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return json.dumps(value, ensure_ascii=False)
