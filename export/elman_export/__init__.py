"""Train recurrent text models and export them as artefacts: one ONNX file that describes itself."""

import os
from typing import TYPE_CHECKING, Any

# onnxruntime's Linux wheels send telemetry unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from elman_export.artefacts.artefact import Artefact, read_artefact, write_artefact
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
    from elman_export.exporting.from_torch import export_layers

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
    "read_artefact",
    "write_artefact",
]


def __getattr__(name: str) -> Any:
    """Import `export_layers` when it is asked for: it needs torch, which takes seconds."""
    if name != "export_layers":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from elman_export.exporting import from_torch  # noqa: PLC0415

    return from_torch.export_layers
