import os
import signal
import threading

import pytest

from elman_client.cli._interrupts import Interrupts


def press() -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def test_a_run_returns_or_raises_what_its_function_does():
    """Without Ctrl-C a run is as a call, and no handler stays behind."""
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        assert interrupts.run(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            interrupts.run(lambda: 1 / 0)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_stops_what_can_be_stopped():
    """The first Ctrl-C calls what stops the function, whose end the run waits for."""
    stopped, ended = threading.Event(), threading.Event()

    def function() -> None:
        with interrupts.stopping(stopped.set):
            press()
            assert stopped.wait(10)
            ended.set()

    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            interrupts.run(function)
        assert ended.is_set()


def test_ctrl_c_before_the_function_can_be_stopped_stops_it_then():
    """A Ctrl-C of the moment between a prompt and its answer is for the answer."""
    stopped = threading.Event()

    def function() -> None:
        with interrupts.stopping(stopped.set):
            assert stopped.wait(10)

    with Interrupts() as interrupts:
        press()
        with pytest.raises(KeyboardInterrupt):
            interrupts.run(function, is_patient=True)
        assert interrupts.run(lambda: 7) == 7


def test_a_ctrl_c_that_came_too_late_is_forgotten():
    """What came after an answer does not end the next one."""
    with Interrupts() as interrupts:
        press()
        interrupts.forget()
        assert interrupts.run(lambda: 7) == 7


def test_a_function_that_nothing_stops_is_left_behind():
    """Its thread stays in its call; the main thread goes on at once."""
    release = threading.Event()

    def function() -> None:
        press()
        release.wait()

    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            interrupts.run(function)
        assert interrupts.run(lambda: 7) == 7
    release.set()


def test_a_second_ctrl_c_leaves_a_function_that_does_not_stop():
    """The server may not answer to the stop either."""
    release = threading.Event()

    def function() -> None:
        with interrupts.stopping(press):
            press()
            release.wait()

    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        interrupts.run(function)
    release.set()


def test_a_signal_that_another_thread_takes_wakes_the_main_thread():
    """The kernel may give the signal to any thread: the main thread, which waits, is woken all the same."""
    release = threading.Event()

    def function() -> None:
        with interrupts.stopping(release.set):
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            assert release.wait(10)

    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        interrupts.run(function)


def test_a_command_of_the_background_stays_deaf(monkeypatch):
    """Where a shell's `&` has let SIGINT be ignored, it stays so."""
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
    installed = []
    monkeypatch.setattr(signal, "signal", lambda *given: installed.append(given))

    with Interrupts():
        assert installed == []
