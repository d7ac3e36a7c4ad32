"""The exporter's errors, one tree."""


class ExportError(Exception):
    """The root: what happened and what to do next, in one sentence for a person."""
