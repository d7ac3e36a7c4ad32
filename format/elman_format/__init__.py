"""The artefact's format, on which the exporter and the server agree: docs/artefact.md in code.

Pure Python: neither onnx nor torch nor numpy. What `seal` writes has passed every check of `parse`.
"""

from elman_format.errors import FormatError
from elman_format.file import File, parse, seal
from elman_format.layout import Layout, layouts
from elman_format.metadata import Metadata
from elman_format.names import Vocabulary, check_labels, check_vocabulary, specials_of
from elman_format.operators import operators
from elman_format.probe import Probe
from elman_format.tensors import Tensor, tensors

__all__ = [
    "File",
    "FormatError",
    "Layout",
    "Metadata",
    "Probe",
    "Tensor",
    "Vocabulary",
    "check_labels",
    "check_vocabulary",
    "layouts",
    "operators",
    "parse",
    "seal",
    "specials_of",
    "tensors",
]
