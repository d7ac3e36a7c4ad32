"""``evaluate``: how well an artefact predicts a text, printed and kept in the artefact."""

# ruff: noqa: D301, PLC0415 — click's paragraph mark is a real backspace; onnxruntime is not needed for --help

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from elman_export.artefacts.artefact import Artefact, read_artefact
from elman_export.commands.options import json_option
from elman_export.errors import ArtefactError, CorpusError
from elman_export.evaluation.loss import Loss

if TYPE_CHECKING:
    from elman_export.evaluation.evaluate import Evaluation
    from elman_export.evaluation.split import Split

COUNTING = "Kneser-Ney 5-gram"


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("text", type=click.Path(path_type=Path))
@click.option("--whole", is_flag=True, help="All of TEXT is held out: evaluate all of it.")
@click.option("--dry-run", is_flag=True, help="Only print: leave MODEL as it is.")
@json_option
def evaluate(*, model: Path, text: Path, whole: bool, dry_run: bool, as_json: bool) -> None:
    """Measure how well MODEL predicts TEXT, and save the record in MODEL.

    The artefact reads the last 10 % of TEXT by two protocols: streaming, with the state carried from beginning to end,
    and in windows of 256 symbols with a new state in each. A Kneser-Ney 5-gram model, counted in the first 90 %, is the
    baseline without a network. Records of the same text are replaced.

    The record changes the digest of MODEL, which is its identity: sessions of the old file do not continue with the
    new one. Evaluate before you serve.

    \b
    Examples:
      python -m elman_export evaluate mine.onnx my.txt
      python -m elman_export evaluate mine.onnx unseen.txt --whole --dry-run
    """
    from elman_export.evaluation.evaluate import check_predicts, with_records
    from elman_export.evaluation.split import read_split

    artefact = read_artefact(model)
    check_predicts(artefact)
    split = read_split(text, artefact.metadata.vocabulary, is_whole=whole)
    if whole and not dry_run and artefact.metadata.recipe.get("corpus_sha256") == split.sha256:
        raise CorpusError(f"{text} is the text that {model} was trained on: omit --whole, or add --dry-run.")
    evaluation = _evaluate(artefact, split)
    written = artefact if dry_run else with_records(artefact, evaluation)
    if as_json:
        click.echo(json.dumps(_to_json(written, evaluation), indent=2))
    else:
        _show(artefact, text, evaluation)
    if dry_run:
        return
    if read_artefact(model).digest != artefact.digest:
        raise ArtefactError(f"{model} changed meanwhile, so nothing was written: evaluate it again.")
    written.save(model)
    if not as_json:
        click.echo(_saved(model, artefact.digest, written.digest))


def _evaluate(artefact: Artefact, split: "Split") -> "Evaluation":
    """With a bar on a terminal, silently elsewhere."""
    from elman_export.evaluation.evaluate import evaluate, num_steps

    console = Console(stderr=True)
    columns = [TextColumn("evaluating"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left")]
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=num_steps(split))
        return evaluate(artefact, split, lambda count: progress.advance(task, count))


def _show(artefact: Artefact, text: Path, evaluation: "Evaluation") -> None:
    own, split = artefact.metadata, evaluation.split
    part = "all" if split.is_whole else "the last 10 %"
    click.echo(f"{own.name} ({own.cell}, {own.num_parameters:,} parameters) on {part} of {text}:")
    Console().print(_table(evaluation))
    if gain := evaluation.gain():
        relation = "below" if gain.nats > 0 else "ABOVE"
        click.echo(
            f"Streaming is {abs(gain.nats):.4f} ± {gain.standard_error:.4f} nats {relation} the {COUNTING}, "
            "compared in pairs."
        )
    click.echo(
        "Checkpoint and settings may have been selected on this text; the halves show how much a figure depends on it."
    )


def _table(evaluation: "Evaluation") -> Table:
    """One line a protocol, and one for the n-gram model."""
    is_bytes = not evaluation.split.characters.all()
    table = Table(Column(no_wrap=True), "nats/char", "±", "bits/char", *(["nats/byte"] if is_bytes else []), "halves")
    rows = {**evaluation.losses, **({} if evaluation.counting is None else {COUNTING: evaluation.counting})}
    for name, losses in rows.items():
        loss, halves = evaluation.loss(losses), evaluation.halves(losses)
        table.add_row(
            name,
            f"{loss.nats:.4f}",
            f"{loss.standard_error:.4f}",
            f"{loss.bits:.4f}",
            *([f"{Loss.of(losses).nats:.4f}"] if is_bytes else []),
            ", ".join(f"{half.nats:.4f}" for half in halves),
        )
    return table


def _to_json(artefact: Artefact, evaluation: "Evaluation") -> dict[str, Any]:
    """Everything that was measured; `digest` is that of the file after the command."""
    split, gain = evaluation.split, evaluation.gain()
    rows = {**evaluation.losses, **({} if evaluation.counting is None else {"kneser-ney-5": evaluation.counting})}
    return {
        "model": artefact.metadata.name,
        "digest": artefact.digest,
        "corpus_sha256": split.sha256,
        "is_whole": split.is_whole,
        "losses": {
            name: {
                **_figures(evaluation.loss(losses)),
                "nats_per_symbol": Loss.of(losses).nats,
                "halves": [_figures(half) for half in evaluation.halves(losses)],
            }
            for name, losses in rows.items()
        },
        "gain_over_kneser_ney": None if gain is None else asdict(gain),
    }


def _figures(loss: Loss) -> dict[str, float]:
    return {
        "nats_per_character": loss.nats,
        "bits_per_character": loss.bits,
        "standard_error": loss.standard_error,
        "num_characters": loss.num_characters,
    }


def _saved(model: Path, before: str, after: str) -> str:
    if before == after:
        return f"{model} already has this record: its digest remains {after}."
    return (
        f"Saved in {model}: its digest is now {after}, was {before}. "
        "Sessions are pinned to the digest: those of the old file do not continue with this one."
    )
