"""The artefact's format, on which the exporter and the server agree: docs/artefact.md in code.

Pure Python: neither onnx nor torch nor numpy. What `seal` writes has passed every check of `parse`.
"""

from elman_format.errors import FormatError
from elman_format.file import MAX_BYTES, File, parse, seal
from elman_format.layout import BATCHES, LAYOUTS, Layout, layouts
from elman_format.metadata import CELLS, FORMAT, QUANTIZATION, STATES, Metadata
from elman_format.names import BYTES, NAME, NUM_BYTES, Vocabulary, check_labels, check_vocabulary
from elman_format.operators import CUT_SAFE, operators
from elman_format.probe import Probe

__all__ = [
    "BATCHES",
    "BYTES",
    "CELLS",
    "CUT_SAFE",
    "FORMAT",
    "LAYOUTS",
    "MAX_BYTES",
    "NAME",
    "NUM_BYTES",
    "QUANTIZATION",
    "STATES",
    "File",
    "FormatError",
    "Layout",
    "Metadata",
    "Probe",
    "Vocabulary",
    "check_labels",
    "check_vocabulary",
    "layouts",
    "operators",
    "parse",
    "seal",
]
