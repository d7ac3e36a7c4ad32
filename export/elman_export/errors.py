"""Everything that goes wrong in a way a person can mend, one tree.

ExportError
├── ArtefactError      a file is not an artefact, or one that cannot be honoured
├── CheckpointError    a checkpoint folder cannot be read, or does not fit
├── CorpusError        a text cannot be trained on
├── DifferenceError    an artefact does not compute what its source computes
└── ModuleError        a user's module does not follow the convention, or cannot be traced
"""


class ExportError(Exception):
    """The root: what happened and what to do next, in one sentence for a person."""


class ArtefactError(ExportError):
    """A file is not an artefact, or one that cannot be honoured."""


class CheckpointError(ExportError):
    """A checkpoint folder cannot be read, or does not fit."""


class CorpusError(ExportError):
    """A text cannot be trained on."""


class DifferenceError(ExportError):
    """An artefact does not compute what its source computes."""


class ModuleError(ExportError):
    """A user's module does not follow the convention, or cannot be traced."""
