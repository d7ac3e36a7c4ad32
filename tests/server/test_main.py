import asyncio
import os
import signal
import subprocess
import sys
import tomllib

import pytest

from elman_server.process.settings import RULES, flag, variable
from elman_server.process.signals import StopSignals

COMMAND = [sys.executable, "-m", "elman_server"]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, without variables of the tester's own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ELMAN_")}
    return subprocess.run(
        [*COMMAND, *arguments], env=clean | variables, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_tells_every_setting():
    """`--help` lists every flag with its variable, and examples."""
    done = run("--help")

    assert done.returncode == 0
    assert [name for name in RULES if flag(name) not in done.stdout or f"({variable(name)})" not in done.stdout] == []
    assert "Examples:" in done.stdout


def test_the_effective_settings_are_printed():
    """`--print-config` prints what flags and variables come to, and serves nothing."""
    done = run("--print-config", "--listen", "127.0.0.1:0", ELMAN_MAX_BATCH="7")
    settings = tomllib.loads(done.stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert (settings["listen"], settings["max_batch"]) == ("127.0.0.1:0", 7)


@pytest.mark.parametrize(
    ("arguments", "variables", "sentence"),
    [
        (["--max-batch", "0"], {}, "elman-server: --max-batch (ELMAN_MAX_BATCH) is '0'; allowed is 1 to 1024\n"),
        (
            [],
            {"ELMAN_STORE": "mysql://me:secret@there"},
            (
                "elman-server: --store (ELMAN_STORE) is 'mysql://***@there'; allowed is memory:, sqlite:PATH, "
                "redis://, rediss:// or redis+cluster://HOST:PORT\n"
            ),
        ),
    ],
)
def test_a_bad_setting_is_one_line(arguments: list[str], variables: dict[str, str], sentence: str):
    """A start that fails says why in one line on standard error and exits 1."""
    done = run(*arguments, **variables)

    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


async def test_the_first_signal_asks_to_stop():
    """SIGTERM or SIGINT sets the event that the server waits for."""
    for number in (signal.SIGTERM, signal.SIGINT):
        with StopSignals() as stop:
            os.kill(os.getpid(), number)
            await asyncio.wait_for(stop.wait(), 10)


def test_the_second_signal_ends_at_once():
    """A process that does not come to its end leaves at the second signal, with the signal's status."""
    code = """
import asyncio, os, signal
from elman_server.process.signals import StopSignals
async def main():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)

    assert done.returncode == 128 + signal.SIGTERM
