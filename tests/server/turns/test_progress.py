"""What a running turn remembers of what it has delivered."""

from elman_server.domain.state import SessionState
from elman_server.sessions.transitions import Durability
from elman_server.turns.progress import Progress
from elman_server.turns.running_turn import RunningTurn

PIECE = 64


def state(number: int) -> SessionState:
    """Return a state that differs from others."""
    return SessionState((bytes([number % 256]),), number)


def test_a_turn_without_a_session_keeps_no_more_than_since_the_last_memory() -> None:
    """However much it samples, nothing is committed. Positions and counts continue as if it kept everything."""
    turn = RunningTurn(None, None, None, loaded=None, state=state(0), durability=Durability())  # type: ignore[arg-type]
    turn.plan([1, 2, 3])
    for number in range(1, 101):
        turn.progress.remember(len(turn.progress.delivered) + PIECE, state(number))
        for _ in range(PIECE):
            turn.deliver([5])
        assert len(turn.progress.delivered) < PIECE
        assert (turn.position, turn.num_sampled, turn.durable) == (3 + number * PIECE, number * PIECE, 0)
    turn.deliver([5, 6])
    assert turn.progress.nearest() == (state(100), [5, 6])
    turn.undo()
    assert (turn.position, turn.num_sampled) == (0, 0)


def test_a_memory_beyond_what_was_handed_over_is_not_told() -> None:
    """The engine is ahead of the reader: what it sent last may not be committed yet."""
    progress = Progress(state(0), [1])
    progress.remember(2, state(2))
    progress.remember(4, state(4))
    progress.deliver([7])
    assert (progress.last_state(), progress.nearest()) == (None, (state(0), [1, 7]))
    progress.deliver([8, 9])
    assert (progress.last_state(), progress.nearest()) == ((2, state(2)), (state(2), [9]))
    progress.deliver([9])
    assert progress.last_state() == (4, state(4))
    progress.advance(4, state(4))
    assert progress.nearest() == (state(4), [])
