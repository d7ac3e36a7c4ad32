"""``prime``: a named state to start sessions from, stored in the artefact."""

from dataclasses import replace
from pathlib import Path

import click

from elman_export._storing import check_name, output_option, reading, replace_option
from elman_export.artefact import read_artefact
from elman_export.errors import CorpusError
from elman_export.runtime import Runtime
from elman_export.states import state_after
from elman_export.vocabulary import encode_text

_path = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_path)
@click.option("--name", required=True, help="What the state is called; 'default' is what sessions start from.")
@click.option("--text", required=True, type=_path, help="A UTF-8 file, read to its last character.")
@replace_option
@output_option
def prime(*, model: Path, name: str, text: Path, is_replaced: bool, output: Path | None) -> None:
    r"""Let MODEL read a text, and store the state that it comes to as one that sessions may start from.

    A session that starts there is at position 0 and remembers the text as if it had read it: every
    probability after it is the same. A line end at the end of the file is read too.

    The digest changes: to a server it is another model.

    \b
    Example:
      python -m elman_export prime mine.onnx --name juliet --text juliet.txt
      elman chat --initial-state juliet
    """
    artefact = read_artefact(model)
    metadata = artefact.metadata
    check_name("initial state", name, metadata.initial_states, is_replaced=is_replaced)
    ids = encode_text(metadata.vocabulary, _read(text), f"The text {text}")
    with reading(len(ids), "characters") as advance:
        state = state_after(Runtime(artefact), ids, advance)
    changed = artefact.with_metadata(replace(metadata, initial_states={**metadata.initial_states, name: state}))
    changed.save(output or model)
    click.echo(f"Wrote {output or model}, initial state {name} after {len(ids):,} characters; digest {changed.digest}.")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # bytes, for line ends are characters too
    except OSError as error:
        raise CorpusError(f"Cannot read the text {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"The text {path} is not UTF-8 (byte {error.start}): convert it first.") from error
