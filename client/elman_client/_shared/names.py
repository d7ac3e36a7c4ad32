"""Resource names: both ``x`` and ``sessions/x`` are good."""


def session_name(name: str) -> str:
    """Return ``sessions/{session}``."""
    return _in_collection("sessions/", name)


def model_name(name: str) -> str:
    """Return ``models/{model}``, with the version if there is one."""
    return _in_collection("models/", name)


def _in_collection(collection: str, name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, not {type(name).__name__}")
    return name if name.startswith(collection) else collection + name
