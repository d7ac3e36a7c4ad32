"""Training on tiny texts: it learns, it resumes exactly, it refuses what it cannot do."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from elman_export.commands.progress import _printable
from elman_export.commands.train import _first_signal, train
from elman_export.errors import CheckpointError, CorpusError, ExportError
from elman_export.evaluation.corpus import Corpus, read_corpus
from elman_export.training.checkpoint import load_checkpoint, load_training
from elman_export.training.recipe import Recipe
from elman_export.training.run import Row, Run
from elman_export.training.streaming_loss import QUICK_STREAMS, streaming_loss
from elman_export.training.trainer import Trainer

TEXT = "the quick brown fox jumps over the lazy dog\n" * 40
RECIPE = Recipe(
    hidden_size=16, embedding_size=8, epochs=2.0, streams=4, length=16, length_jitter=2, averaging=0.9, held_back=0.0
)


class Silent:
    """A display that shows nothing."""

    def on_step(self, run: Run, loss: float) -> None:
        """Nothing."""

    def on_row(self, run: Run, row: Row) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums are taken in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A file of forty pangrams."""
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def corpus(text: Path) -> Corpus:
    """The same, read."""
    return read_corpus(text)


def change(recipe: Recipe, **settings: Any) -> Recipe:
    """A recipe with other settings."""
    return Recipe(**{**vars(recipe), **settings})


def after(count: int) -> Callable[[], bool]:
    """A wish to stop, after so many questions."""
    answers = iter([False] * count)
    return lambda: next(answers, True)


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_a_repeated_sentence_is_learnt(corpus: Corpus, cell: str):
    """The loss falls far below that of guessing."""
    trainer = Trainer(change(RECIPE, cell=cell, epochs=12.0, learning_rate=0.02), corpus)
    losses = []
    while trainer.progress < 1:
        losses.append(trainer.step())
    assert losses[0] > 3.0
    assert sum(losses[-10:]) / 10 < 1.5


@pytest.mark.parametrize(  # within the first epoch, at its end, within the second
    ("cell", "stop_after"), [("elman", 1), ("elman", 23), ("lstm", 30)]
)
def test_a_stopped_run_ends_where_an_unbroken_one_does(corpus: Corpus, tmp_path: Path, cell: str, stop_after: int):
    """Stopping and resuming changes not one bit of the weights, nor of the log's losses."""
    recipe = change(RECIPE, cell=cell)
    whole = Run(recipe, corpus, tmp_path / "whole")
    whole.go(Silent(), lambda: False)
    Run(recipe, corpus, tmp_path / "parts").go(Silent(), after(stop_after))
    resumed = Run(recipe, corpus, tmp_path / "parts")
    assert resumed.trainer.num_steps == stop_after
    resumed.go(Silent(), lambda: False)

    expected, _ = load_checkpoint(tmp_path / "whole")
    actual, _ = load_checkpoint(tmp_path / "parts")
    for name, tensor in expected.state_dict().items():
        assert torch.equal(actual.state_dict()[name], tensor)
    assert [row.training_loss for row in resumed.rows] == [row.training_loss for row in whole.rows]


def test_seeds_decide(corpus: Corpus):
    """One seed gives one run, another another."""
    first, second, third = (Trainer(change(RECIPE, seed=seed), corpus) for seed in (1, 1, 2))
    losses = [[trainer.step() for _ in range(3)] for trainer in (first, second, third)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_text_is_held_back_for_the_scale(tmp_path: Path):
    """The scale is folded into the output layer and into nothing else."""
    path = tmp_path / "long.txt"
    path.write_text(TEXT * 10)
    trainer = Trainer(change(RECIPE, held_back=0.1), read_corpus(path))
    trainer.step()
    average, scaled = trainer.average.state_dict(), trainer.averaged().state_dict()
    same = {name for name in average if torch.equal(average[name], scaled[name])}
    assert average.keys() - same == {"output.weight", "output.bias"}


def test_another_configuration_is_refused(corpus: Corpus, tmp_path: Path):
    """A folder belongs to one run, and the sentence says what differs."""
    Run(RECIPE, corpus, tmp_path / "run").go(Silent(), after(1))
    with pytest.raises(CheckpointError, match=r"hidden_size 16 \(now 17\)"):
        Run(change(RECIPE, hidden_size=17), corpus, tmp_path / "run")


def test_threads_and_device_are_part_of_a_run(corpus: Corpus, tmp_path: Path, monkeypatch):
    """Another number of threads adds sums up in another order: such a run is not the same."""
    Run(RECIPE, corpus, tmp_path / "run").go(Silent(), after(1))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    with pytest.raises(CheckpointError, match=r"with threads \d+ \(now 64\)\. Repeat its settings"):
        Run(RECIPE, corpus, tmp_path / "run")


def test_a_text_too_short_for_its_streams_is_refused(corpus: Corpus):
    """The sentence says how much text there must be."""
    with pytest.raises(CorpusError, match="too short: 64 streams of 64 characters need about 4,"):
        Trainer(Recipe(), corpus)


def test_a_diverged_run_is_ended(corpus: Corpus):
    """A loss that is no number stops the run instead of being saved."""
    trainer = Trainer(RECIPE, corpus)
    torch.nn.init.constant_(trainer.model.output.bias, float("nan"))
    with pytest.raises(ExportError, match="diverged"):
        trainer.step()


def test_minutes_end_a_run(corpus: Corpus, tmp_path: Path):
    """A time budget stands in for a number of epochs."""
    run = Run(change(RECIPE, epochs=0.0, minutes=0.0001), corpus, tmp_path)
    run.go(Silent(), lambda: False)
    assert run.trainer.progress == 1.0


def test_a_run_that_gains_nothing_ends_early_with_its_best(corpus: Corpus, tmp_path: Path):
    """What is kept is the network of the best epoch, and a later, worse one does not replace it."""
    run = Run(change(RECIPE, epochs=200.0, learning_rate=0.05, patience=2), corpus, tmp_path)
    run.go(Silent(), lambda: False)
    assert run.is_exhausted
    assert run.rows[-1].epoch - run.best.epoch >= 2
    model, _ = load_checkpoint(tmp_path)
    kept = streaming_loss(model, corpus.validation, QUICK_STREAMS).nats
    assert kept == pytest.approx(run.best.validation_loss)
    assert kept < run.rows[-1].validation_loss


def test_the_checkpoint_tells_what_training_took(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Seconds and the loss curve travel with the recipe, for the model card."""
    run = Run(RECIPE, corpus, tmp_path)
    run.go(Silent(), lambda: False)
    loss = run.finish()
    monkeypatch.delattr("elman_export.training.run.streaming_loss")  # it is evaluated once
    assert Run(RECIPE, corpus, tmp_path).finish() == loss
    training = load_checkpoint(tmp_path)[1].recipe["training"]
    assert training["cpu_seconds"] == run.trainer.cpu_seconds > 0
    assert training["curve"] == [[row.epoch, row.training_loss, row.validation_loss] for row in run.rows]


def test_a_device_that_is_not_there_is_refused(text: Path, tmp_path: Path):
    """No silent fall-back to another device."""
    if torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    result = CliRunner().invoke(train, [str(text), "-o", str(tmp_path / "out"), "--device", "mps"])
    assert isinstance(result.exception, ExportError)
    assert "does not support mps" in str(result.exception)


SMALL = ["--hidden-size", "8", "--embedding-size", "4"]


def small_recipe(folder: Path) -> list[str]:
    """The options of a run that a small text allows."""
    path = folder / "small.toml"
    path.write_text("streams = 4\nlength = 16\n")
    return ["--recipe", str(path), *SMALL]


def test_the_command_leaves_a_checkpoint_a_log_and_a_picture(text: Path, tmp_path: Path):
    """One command goes from a text to a network with its record; the second finds nothing left to do."""
    arguments = [str(text), "-o", str(tmp_path / "out"), "--epochs", "2", *small_recipe(tmp_path)]
    for _ in range(2):
        result = CliRunner().invoke(train, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        assert "nats per character" in result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "log.csv", "log.json", "loss.png", "model.safetensors", "training.safetensors"}
    assert len((tmp_path / "out" / "log.csv").read_text().splitlines()) == 3
    _, config = load_checkpoint(tmp_path / "out")
    assert config.recipe["corpus_characters"] == len(TEXT)
    assert config.evaluation[0]["protocol"] == "streaming"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_acts(number: signal.Signals):
    """Ctrl-C and SIGTERM alike; afterwards both mean what they meant before."""
    seen: list[int] = []
    before = signal.signal(number, lambda signum, _: seen.append(signum))
    try:
        with _first_signal() as received:
            signal.raise_signal(number)
            assert (received, seen) == ([number], [])
            signal.raise_signal(number)
        assert (received, seen) == ([number], [number])
    finally:
        signal.signal(number, before)


def test_a_signal_saves_and_says_how_to_continue(text: Path, tmp_path: Path):
    """The first one ends with 128 and its number, and all that was learnt is in the folder."""
    number = signal.SIGTERM
    program = "from elman_export.commands.train import train; train()"
    out = tmp_path / "out"
    command = [sys.executable, "-c", program, str(text), "-o", str(out), "--epochs", "100000", *small_recipe(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "epoch" not in process.stdout.readline():
            pass
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 128 + number
    assert "Run the same command again to continue." in rest
    saved = load_training(out)
    assert saved is not None
    assert saved[1]["position"]["num_steps"] > 0


def test_a_disk_that_refuses_is_one_sentence(text: Path, tmp_path: Path):
    """The file is named, and what was saved before is whole."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors.part").mkdir()  # no file can be written there
    result = CliRunner().invoke(train, [str(text), "-o", str(out), "--epochs", "1", *small_recipe(tmp_path)])
    assert isinstance(result.exception, CheckpointError)
    assert "model.safetensors.part: Is a directory. The last checkpoint is whole" in str(result.exception)


def test_a_learning_rate_is_an_option(text: Path, tmp_path: Path):
    """The advice after a run that diverged can be followed on the command line."""
    options = ["--epochs", "1", "--learning-rate", "0.001", *small_recipe(tmp_path)]
    result = CliRunner().invoke(train, [str(text), "-o", str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    assert load_checkpoint(tmp_path / "out")[1].recipe["learning_rate"] == 0.001


def test_a_sample_does_not_steer_the_terminal():
    """Escape sequences of a text are shown as dots; line ends stay."""
    assert _printable("a\x1b[2J\x9bb\nc\r") == "a·[2J·b\nc·"
