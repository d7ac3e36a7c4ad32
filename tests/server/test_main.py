import asyncio
import json
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
    """`--print-config` prints the settings that result from flags and variables, and serves nothing."""
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
        with StopSignals(3600, print) as stop:
            os.kill(os.getpid(), number)
            await asyncio.wait_for(stop.wait(), 10)


def test_the_second_signal_ends_at_once():
    """A process that does not finish exits at the second signal, with the signal's status."""
    code = """
import asyncio, os, signal
from elman_server.process.signals import StopSignals
async def main():
    with StopSignals(3600, print) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)

    assert done.returncode == 128 + signal.SIGTERM


def test_a_stop_that_takes_too_long_ends_the_process():
    """Past its limit a stop ends the process, even if the loop hangs, and says so."""
    code = """
import asyncio, os, signal, time
from elman_server.process.logs import set_up_logs
from elman_server.process.signals import StopSignals
set_up_logs("json", "info")
async def main():
    with StopSignals(0.2, print) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        time.sleep(3600)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False, capture_output=True, text=True)

    assert done.returncode == 1
    assert json.loads(done.stderr)["event"] == "stop_took_too_long"


def test_a_hangup_reloads():
    """SIGHUP, also that of the end of a terminal, does not end the server: it looks at its models again."""
    code = """
import asyncio, os, signal
from elman_server.process.signals import StopSignals
async def main():
    hung_up = asyncio.Event()
    with StopSignals(3600, hung_up.set):
        os.kill(os.getpid(), signal.SIGHUP)
        await hung_up.wait()
        print("alive")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "alive\n")


def test_a_hangup_while_it_loads_ends_nothing(tmp_path):
    """SIGHUP is ignored before the first of the server's libraries is loaded."""
    (tmp_path / "structlog.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\nraise SystemExit('alive')\n"
    )
    done = run("--print-config", PYTHONPATH=str(tmp_path))

    assert (done.returncode, done.stderr) == (1, "alive\n")


def test_variables_of_a_service_of_that_name_are_ignored():
    """What Kubernetes or docker set beside a service `elman` does not stop the start and is not logged."""
    names = ("ELMAN_PORT", "ELMAN_SERVICE_HOST", "ELMAN_PORT_50051_TCP_ADDR", "ELMAN_REDIS_PORT_6379_TCP")
    done = run("--print-config", **dict.fromkeys(names, "tcp://10.0.0.1:50051"))

    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_variable_is_a_warning():
    """An unknown variable is one line of the log, with the setting that was meant."""
    done = run("--print-config", "--log-format", "json", ELMAN_MAX_BATHC="4")
    line = json.loads(done.stderr)

    assert (done.returncode, line["level"], line["event"]) == (0, "warning", "unknown_variable")
    assert (line["variable"], line["hint"]) == ("ELMAN_MAX_BATHC", "did you mean ELMAN_MAX_BATCH?")


def test_an_unknown_flag_is_refused():
    """A misspelt flag stops the start."""
    done = run("--max-bathc", "4")

    assert done.returncode == 2
    assert "--max-bathc" in done.stderr
