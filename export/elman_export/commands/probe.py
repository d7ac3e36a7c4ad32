"""``probe``: a read-out of the state, fitted and stored in the artefact."""

from dataclasses import replace
from pathlib import Path

import click

from elman_export.artefacts.artefact import read_artefact
from elman_export.commands.options import check_name, check_output, output_option, reading, replace_option
from elman_export.evaluation.probing import fit_probe, read_labelled

_path = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_path)
@click.argument("labelled", type=_path)
@click.option("--name", required=True, help="The name of the read-out.")
@click.option(
    "--strength",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Inverse of the penalty on large weights: higher values follow the examples more closely.",
)
@replace_option
@output_option
def probe(*, model: Path, labelled: Path, name: str, strength: float, is_replaced: bool, output: Path | None) -> None:
    """Fit a linear read-out to the states of MODEL on the texts in LABELLED, and store it in MODEL.

    LABELLED holds one JSON object in each line: a text with the label at its end, or with one label
    (or null) for each character. A fifth of the texts is held out to measure the accuracy.

    The digest changes: to a server it is another model.

    \b
    Example:
      python -m elman_export probe mine.onnx reviews.jsonl --name sentiment
    \b
      {"text": "The movie was", "label": "neutral"}
      {"text": "The movie was terribly good!", "label": "positive"}
    """  # noqa: D301 — click's paragraph mark is a real backspace
    artefact = read_artefact(model)
    metadata = artefact.metadata
    check_output(output or model, overwrite=True)
    check_name("read-out", name, metadata.probes, is_replaced=is_replaced)
    corpus = read_labelled(labelled, metadata.vocabulary)
    with reading(len(corpus.texts), "texts") as advance:
        fitted = fit_probe(artefact, corpus, strength, advance)
    changed = artefact.with_metadata(replace(metadata, probes={**metadata.probes, name: fitted}))
    changed.save(output or model)
    record = fitted.record
    click.echo(
        f"Accuracy {record['accuracy']:.1%} ± {record['standard_error']:.1%} on {record['num_held_out']:,} held-out "
        f"characters; always choosing the most common label would give {record['majority']:.1%}."
    )
    click.echo(f"Wrote {output or model}, read-out {name}: {', '.join(fitted.labels)}; digest {changed.digest}.")
