"""``quantize``: from a float32 artefact to one with int8 products."""

# ruff: noqa: D301 — click's paragraph mark is a real backspace

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from elman_export._reading import Losses, Text, mean_and_error, read_text, streaming_losses
from elman_export.artefact import Artefact, read_artefact
from elman_export.quantisation import calibrate, quantise, require_quantisable
from elman_export.verify import verify

TRAINING_PERCENT = 90  # as train has it; the rest of a text is held out
# The largest |h| hardly grows any more after so many, and a gigabyte would take half a day.
MAX_CALIBRATION = 200_000
_path = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_path)
@click.option("--calibrate", "text", required=True, type=_path, help="A text of the kind that MODEL reads.")
@click.option("-o", "--output", type=_path, help="The file to write; by default MODEL's name with -int8.")
@click.option("--evaluate", "unseen", type=_path, help="Measure the loss on all of this text instead.")
@click.option(
    "--clip",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="The part of the largest |h| that is kept. Below 1 an over-confident model gets calmer.",
)
@click.option("--name", help="The model's name; by default MODEL's.")
@click.option("--model-version", help="The model's version; by default MODEL's with -int8.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quantize(
    *,
    model: Path,
    text: Path,
    output: Path | None,
    unseen: Path | None,
    clip: float,
    name: str | None,
    model_version: str | None,
    as_json: bool,
) -> None:
    """Write MODEL with int8 products: a third of the time, a third of the size, and as exact.

    The first 90 % of the text, at most 200,000 symbols of it, tell how far each layer's state goes. Both models are
    then measured on its last 10 %. Nothing is written unless rows are the same bits in every batch and prefill equals
    stepping.

    \b
    Example:
      python -m elman_export quantize mine.onnx --calibrate my.txt
      python -m elman_export quantize mine.onnx --calibrate my.txt --evaluate unseen.txt -o small.onnx
    """
    source = read_artefact(model)
    require_quantisable(source)
    seen, held_out = _texts(source, text, unseen)
    output = output or model.with_name(f"{model.stem}-int8.onnx")
    own = source.metadata
    name, model_version = name or own.name, model_version or f"{own.version}-int8"
    with _progress() as progress:
        calibration = calibrate(source, seen, _bar(progress, "calibrating", len(seen.ids)))
        unmeasured = quantise(source, calibration, clip=clip, name=name, version=model_version)
        before = streaming_losses(source, held_out.ids, _bar(progress, "measuring float32", len(held_out.ids)))
        after = streaming_losses(unmeasured, held_out.ids, _bar(progress, "measuring int8", len(held_out.ids)))
        progress.add_task("verifying", total=None)
        artefact = _with_record(unmeasured, held_out, after, "streaming-whole" if unseen else "streaming")
        verify(artefact, {}).require()
    artefact.save(output)
    report = _report(source, artefact, output, before, after)
    click.echo(json.dumps(report, indent=2) if as_json else _sentences(report))


def _texts(source: Artefact, text: Path, unseen: Path | None) -> tuple[Text, Text]:
    """What is calibrated on, and what is measured on."""
    whole = read_text(text, source.metadata.vocabulary)
    cut = len(whole.ids) * TRAINING_PERCENT // 100
    seen = replace(whole, ids=whole.ids[: min(cut, MAX_CALIBRATION)])
    if unseen:
        return seen, read_text(unseen, source.metadata.vocabulary)
    return seen, replace(whole, ids=whole.ids[cut:])


def _progress() -> Progress:
    """On a terminal; silent elsewhere."""
    console = Console(stderr=True)
    columns = [TextColumn("{task.description:17}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()]
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _bar(progress: Progress, description: str, total: int) -> Callable[[int], object]:
    task = progress.add_task(description, total=total)
    return lambda count: progress.advance(task, count)


def _with_record(artefact: Artefact, text: Text, losses: Losses, protocol: str) -> Artefact:
    """The same with its loss, which is not its source's."""
    nats, error = mean_and_error(losses)
    record = {
        "corpus_sha256": text.sha256,
        "protocol": protocol,
        "nats_per_character": round(nats, 6),
        "standard_error": round(error, 6),
        "num_characters": len(losses),
    }
    return artefact.with_metadata(replace(artefact.metadata, evaluation=(record,)))


def _report(source: Artefact, artefact: Artefact, output: Path, before: Losses, after: Losses) -> dict[str, Any]:
    difference, error = mean_and_error(after - before)
    return {
        "output": str(output),
        "name": artefact.metadata.name,
        "version": artefact.metadata.version,
        "digest": artefact.digest,
        "file_bytes": len(artefact.data),
        "source_file_bytes": len(source.data),
        "scales": artefact.metadata.recipe["quantisation"]["scales"],
        "num_characters": len(after),
        "float32_nats_per_character": mean_and_error(before)[0],
        "int8_nats_per_character": mean_and_error(after)[0],
        "difference_nats": difference,
        "difference_standard_error": error,
    }


def _sentences(report: dict[str, Any]) -> str:
    return (
        "On {num_characters:,} characters, streaming: float32 {float32_nats_per_character:.4f}, "
        "int8 {int8_nats_per_character:.4f} nats per character, "
        "a difference of {difference_nats:+.4f} ± {difference_standard_error:.4f}.\n"
        "Rows are the same bits in every batch, and prefill equals stepping.\n"
        "Wrote {output}, {file_bytes:,} bytes (float32: {source_file_bytes:,}), digest {digest}."
    ).format(**report)
