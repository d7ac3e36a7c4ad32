import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.load import FEW_STREAMS, Turn
from tests.chaos.scenarios import num_turns, undisturbed
from tests.models import tiny_model


@pytest.fixture(scope="package")
def gru(tmp_path_factory) -> Path:
    """A directory of one model, not so small that its texts are over before anything can be done to them."""
    folder: Path = tmp_path_factory.mktemp("gru")
    tiny_model(folder / "gru.onnx", "gru", hidden_size=256, name="gru")
    return folder


@pytest.fixture(scope="package")
def expected(gru) -> Sequence[Sequence[Turn]]:
    """What an undisturbed server tells."""
    return asyncio.run(undisturbed(gru, num_turns(1), FEW_STREAMS))


@pytest.fixture(scope="package")
def cluster(gru, tmp_path_factory) -> Iterator[Cluster]:
    """Three servers of one Redis behind Envoy, for all scenarios: each leaves them whole."""
    with Cluster(gru, tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
