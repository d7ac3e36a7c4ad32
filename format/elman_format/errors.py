"""The one error of the format."""

__all__ = ["FormatError"]


class FormatError(ValueError):
    """A file or its metadata violates the format; one sentence says what and what to do next."""
