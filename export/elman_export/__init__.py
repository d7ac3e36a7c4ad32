"""Train recurrent text models and export them as artefacts: one ONNX file that describes itself."""

import importlib
import os
from typing import TYPE_CHECKING, Any

# onnxruntime's Linux wheels send telemetry unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from elman_export.errors import (
    ArtefactError,
    CheckpointError,
    CorpusError,
    DifferenceError,
    ExportError,
    ModuleError,
)
from elman_format import Metadata

if TYPE_CHECKING:
    from elman_export.artefacts.artefact import Artefact, read_artefact, write_artefact
    from elman_export.exporting.from_numpy import export_numpy
    from elman_export.exporting.from_torch import export_layers
    from elman_export.tracing.weights import load_state_dict

__all__ = [
    "Artefact",
    "ArtefactError",
    "CheckpointError",
    "CorpusError",
    "DifferenceError",
    "ExportError",
    "Metadata",
    "ModuleError",
    "export_layers",
    "export_numpy",
    "load_state_dict",
    "read_artefact",
    "write_artefact",
]

# Imported when they are asked for: torch and onnxruntime take seconds, and onnx may be missing.
_LATER = {
    "Artefact": "elman_export.artefacts.artefact",
    "export_layers": "elman_export.exporting.from_torch",
    "export_numpy": "elman_export.exporting.from_numpy",
    "load_state_dict": "elman_export.tracing.weights",
    "read_artefact": "elman_export.artefacts.artefact",
    "write_artefact": "elman_export.artefacts.artefact",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return __all__
