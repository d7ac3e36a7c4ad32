import copy
import dataclasses
import inspect
import json
import pickle
import subprocess
import sys
from datetime import datetime
from enum import Enum

import pytest

import elman_client

TWINS = [
    (elman_client.Client, elman_client.AsyncClient),
    (elman_client.Session, elman_client.AsyncSession),
    (elman_client.Generation, elman_client.AsyncGeneration),
    (elman_client.Chat, elman_client.AsyncChat),
]
ASYNC_NAMES = {
    "close": "aclose",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__iter__": "__aiter__",
    "__next__": "__anext__",
}


def _methods(kind: type) -> dict[str, object]:
    own = {**vars(kind.__mro__[1]), **vars(kind)}
    return {
        name: member
        for name, member in own.items()
        if not name.startswith("_") or name in {"__init__", *ASYNC_NAMES, *ASYNC_NAMES.values()}
    }


@pytest.mark.parametrize(("sync", "aio"), TWINS)
def test_twins_have_the_same_methods(sync, aio):
    """Each method of one has its twin in the other, under the same or the asynchronous name."""
    assert {ASYNC_NAMES.get(n, n) for n in _methods(sync)} == set(_methods(aio)) | ({"__init__"} & set(_methods(sync)))


@pytest.mark.parametrize(("sync", "aio"), TWINS)
def test_twins_have_the_same_parameters(sync, aio):
    """Twin methods take the same arguments with the same defaults, and mean the same."""
    for name, member in _methods(sync).items():
        twin = _methods(aio)[ASYNC_NAMES.get(name, name)]
        if name == "__init__" and sync is not elman_client.Client:
            continue  # made by the client, not by users
        if inspect.isfunction(member):
            assert _parameters(member) == _parameters(twin), name
        assert inspect.getdoc(member) == inspect.getdoc(twin), name


def _parameters(function) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def test_the_face_is_sorted_and_complete():
    """The public names are sorted, each is there, and no other is."""
    assert elman_client.__all__ == sorted(elman_client.__all__)
    assert all(getattr(elman_client, name) is not None for name in elman_client.__all__)
    assert set(elman_client.__all__) <= set(dir(elman_client))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = elman_client.Nonsense


def test_values_are_frozen_and_no_protobuf():
    """Every public value type is a frozen dataclass, an enum, or an alias of such."""
    for name in elman_client.__all__:
        value = getattr(elman_client, name)
        if dataclasses.is_dataclass(value):
            assert value.__dataclass_params__.frozen, name  # type: ignore[union-attr]
            fields = " ".join(str(f.type) for f in dataclasses.fields(value))
            assert "pb2" not in fields, name
        elif isinstance(value, type) and value.__module__.startswith("elman_client._types"):
            assert issubclass(value, Enum | dict), name


@pytest.mark.parametrize("module", ["elman_client", "elman_client.cli"])
def test_importing_leaves_the_heavy_libraries_alone(module):
    """Neither the package nor the command line's help loads gRPC, protobuf or prompt_toolkit."""
    heavy = {"grpc", "google.protobuf", "prompt_toolkit", "asyncio"}
    code = f"import sys, {module}; print(*sorted({heavy!r} & sys.modules.keys()))"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert loaded.split() == []


async def test_values_are_pickled_copied_and_written_as_json(client, session):
    """Whatever the client returns can cross a process, be copied, and be a line of JSON."""
    await session.update(labels={"user": "ann"})
    generation = session.generate("a", max_chars=3, logit_bias={"a": 1.5}, log_probability=True)
    events = [event async for event in generation.events()]
    for value in (*await client.list_models(), session.info, await session.transcript(), *events):
        assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
        assert dataclasses.asdict(value).keys() == value.to_dict().keys()
        assert json.loads(json.dumps(value.to_dict())) == value.to_dict()
    assert session.info.to_dict()["labels"] == {"user": "ann"}
    assert session.info.to_dict()["state"] == "ACTIVE"
    assert datetime.fromisoformat(session.info.to_dict()["create_time"]) == session.info.create_time
    assert events[0].to_dict()["sampling"]["logit_bias"] == {"a": 1.5}
    assert events[1].to_dict()["details"][0]["log_probability"] == -0.5
