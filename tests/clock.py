"""A clock for tests of things that end."""

START = 1_000_000.0


class Clock:
    """Unix seconds that stand still until a test moves them."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        """Return the moment."""
        return self.now
