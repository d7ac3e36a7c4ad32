"""Train recurrent text models and export them as artefacts: one ONNX file that describes itself."""

import os

# onnxruntime's Linux wheels send telemetry unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from elman_export.artefact import Artefact, read_artefact, write_artefact
from elman_export.errors import (
    ArtefactError,
    CheckpointError,
    CorpusError,
    DifferenceError,
    ExportError,
    ModuleError,
)
from elman_export.metadata import Metadata

__all__ = [
    "Artefact",
    "ArtefactError",
    "CheckpointError",
    "CorpusError",
    "DifferenceError",
    "ExportError",
    "Metadata",
    "ModuleError",
    "read_artefact",
    "write_artefact",
]
