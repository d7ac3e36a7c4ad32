"""``quantize``: from a float32 artefact to one with int8 products."""

# ruff: noqa: D301 — click's paragraph mark is a real backspace

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from elman_export.artefacts.artefact import Artefact, read_artefact
from elman_export.commands.options import check_output, json_option, model_name, overwrite_option
from elman_export.errors import CorpusError
from elman_export.evaluation.evaluate import STREAMING, Evaluation, streaming_losses, with_records
from elman_export.evaluation.loss import Losses
from elman_export.evaluation.split import Ids, Split, read_split
from elman_export.exporting.quantize import build_quantized, calibrate, require_quantizable
from elman_export.exporting.verify import verify
from elman_format.metadata import QUANTIZATION

# The largest |h| hardly grows after that, and a gigabyte would take half a day.
MAX_CALIBRATION = 200_000
_path = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_path)
@click.option("--calibrate", "text", required=True, type=_path, help="A text like those that MODEL will read.")
@click.option("-o", "--output", type=_path, help="The file to write; by default MODEL's name with -int8.")
@click.option("--evaluate", "unseen", type=_path, help="Measure the loss on all of this text.")
@click.option(
    "--clip",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="The fraction of the largest |h| that is kept; larger values are clipped.",
)
@click.option("--name", help="The model's name; by default MODEL's with -int8.")
@click.option("--model-version", help="The model's version; by default MODEL's with -int8.")
@overwrite_option
@json_option
def quantize(
    *,
    model: Path,
    text: Path,
    output: Path | None,
    unseen: Path | None,
    clip: float,
    name: str | None,
    model_version: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write MODEL with int8 products: a third of the time, a third of the size, with the same guarantees.

    The first 90 % of the text, at most 200,000 symbols, calibrate the range of each layer's state. Both models are then
    measured on its last 10 %; with --evaluate on the whole other text, and the whole first text calibrates. The file
    is written only if rows are equal in every batch and prefill equals stepping, bit for bit.

    \b
    Examples:
      python -m elman_export quantize mine.onnx --calibrate my.txt
      python -m elman_export quantize mine.onnx --calibrate my.txt --evaluate unseen.txt -o small.onnx
    """
    source = read_artefact(model)
    require_quantizable(source)
    output = output or model.with_name(f"{model.stem}-int8.onnx")
    check_output(output, overwrite=overwrite, num_bytes=len(source.data))
    name = model_name(name or f"{source.metadata.name}-int8", output)
    version = model_version or f"{source.metadata.version}-int8"
    seen, sha256, held_out = _texts(source, text, unseen)
    with _progress() as progress:
        calibration = calibrate(source, seen, sha256, _bar(progress, "calibrating", len(seen)))
        unmeasured = build_quantized(source, calibration, clip=clip, name=name, version=version)
        before, after = (
            streaming_losses(artefact, held_out, _bar(progress, f"measuring {what}", len(held_out.evaluated) - 1))
            for artefact, what in ((source, "float32"), (unmeasured, "int8"))
        )
        progress.add_task("verifying", total=None)
        measured = Evaluation(held_out, {STREAMING: after}, None)
        artefact = with_records(unmeasured, measured)
        verify(artefact, {}).require()
    artefact.save(output)
    report = _report(source, artefact, output, measured, before)
    click.echo(json.dumps(report, indent=2) if as_json else _sentences(report))


def _texts(source: Artefact, text: Path, unseen: Path | None) -> tuple[Ids, str, Split]:
    """The symbols to calibrate with, [N], the digest of their file, and the text to measure on."""
    vocabulary = source.metadata.vocabulary
    split = read_split(text, vocabulary, is_whole=unseen is not None)
    seen = (split.evaluated if unseen else split.training)[:MAX_CALIBRATION]
    if seen.max() >= source.metadata.vocabulary_size:
        raise CorpusError(f"The text {text} has characters that the model lacks: remove them.")
    return seen, split.sha256, read_split(unseen, vocabulary, is_whole=True) if unseen else split


def _progress() -> Progress:
    """On a terminal; silent elsewhere."""
    console = Console(stderr=True)
    columns = [TextColumn("{task.description:17}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()]
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _bar(progress: Progress, description: str, total: int) -> Callable[[int], object]:
    task = progress.add_task(description, total=total)
    return lambda count: progress.advance(task, count)


def _report(source: Artefact, artefact: Artefact, output: Path, measured: Evaluation, before: Losses) -> dict[str, Any]:
    after = measured.losses[STREAMING]
    difference = measured.loss(after - before)
    return {
        "output": str(output),
        "name": artefact.metadata.name,
        "version": artefact.metadata.version,
        "digest": artefact.digest,
        "file_bytes": len(artefact.data),
        "source_file_bytes": len(source.data),
        "scales": artefact.metadata.recipe[QUANTIZATION]["scales"],
        "num_characters": difference.num_characters,
        "float32_nats_per_character": measured.loss(before).nats,
        "int8_nats_per_character": measured.loss(after).nats,
        "difference_nats": difference.nats,
        "difference_standard_error": difference.standard_error,
    }


def _sentences(report: dict[str, Any]) -> str:
    return (
        "On {num_characters:,} characters, streaming: float32 {float32_nats_per_character:.4f}, "
        "int8 {int8_nats_per_character:.4f} nats per character, "
        "a difference of {difference_nats:+.4f} ± {difference_standard_error:.4f}.\n"
        "Rows are equal in every batch, and prefill equals stepping, bit for bit.\n"
        "Wrote {output}, {file_bytes:,} bytes (float32: {source_file_bytes:,}), digest {digest}."
    ).format(**report)
