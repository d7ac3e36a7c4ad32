"""``prime``: a named state to start sessions from, stored in the artefact."""

from dataclasses import replace
from pathlib import Path

import click

from elman_export.artefacts.artefact import read_artefact
from elman_export.artefacts.runtime import Runtime
from elman_export.artefacts.vocabulary import encode_text
from elman_export.commands.options import check_name, check_output, output_option, reading, replace_option
from elman_export.errors import CorpusError
from elman_export.evaluation.states import state_after

_path = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_path)
@click.option("--name", required=True, help="The name of the state; 'default' is the initial state of new sessions.")
@click.option("--text", required=True, type=_path, help="A UTF-8 file, read to its last character.")
@replace_option
@output_option
def prime(*, model: Path, name: str, text: Path, is_replaced: bool, output: Path | None) -> None:
    """Read a text with MODEL and store the final state as an initial state for sessions.

    A session that starts there is at position 0, with the same probabilities as after reading the
    text. A line end at the end of the file is read too.

    The digest changes: to a server it is another model.

    \b
    Example:
      python -m elman_export prime mine.onnx --name juliet --text juliet.txt
      elman chat --initial-state juliet
    """  # noqa: D301 — click's paragraph mark is a real backspace
    artefact = read_artefact(model)
    metadata = artefact.metadata
    check_output(output or model, overwrite=True)
    check_name("initial state", name, metadata.initial_states, is_replaced=is_replaced)
    ids = encode_text(metadata.vocabulary, _read(text), f"The text {text}")
    with reading(len(ids), "characters") as advance:
        state = state_after(Runtime(artefact), ids, advance)
    changed = artefact.with_metadata(replace(metadata, initial_states={**metadata.initial_states, name: state}))
    changed.save(output or model)
    click.echo(f"Wrote {output or model}, initial state {name} after {len(ids):,} characters; digest {changed.digest}.")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")  # as bytes: line ends are characters too
    except OSError as error:
        raise CorpusError(f"Cannot read the text {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"The text {path} is not UTF-8 (byte {error.start}): convert it first.") from error
