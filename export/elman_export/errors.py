"""The errors of the exporter, one tree. Each message says what happened and what to do next.

ExportError
├── ArtefactError      a file is not an artefact, or violates the format
├── CheckpointError    a checkpoint folder cannot be read or does not match
├── CorpusError        a text cannot be trained on
├── DifferenceError    an artefact does not compute what its source computes
└── ModuleError        a user's module does not follow the convention or cannot be traced
"""


class ExportError(Exception):
    """The root: what happened and what to do next, in one sentence."""


class ArtefactError(ExportError):
    """A file is not an artefact, or violates the format."""


class CheckpointError(ExportError):
    """A checkpoint folder cannot be read or does not match."""


class CorpusError(ExportError):
    """A text cannot be trained on."""


class DifferenceError(ExportError):
    """An artefact does not compute what its source computes."""


class ModuleError(ExportError):
    """A user's module does not follow the convention or cannot be traced."""
