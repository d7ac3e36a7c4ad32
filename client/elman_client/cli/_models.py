"""``elman models``."""

import click

from elman_client import Model
from elman_client.cli._output import print_json, print_table
from elman_client.cli._remote import Remote, remote_options


@click.command()
@remote_options
def models(remote: Remote) -> None:
    """List the models that the server runs.

    LABELS are what a model reports instead of characters, READ-OUTS are for `elman score --read-out`,
    STARTS for `elman chat --initial-state`.

    \b
    Example:
      elman models --json
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        served = client.list_models()
    if remote.as_json:
        for model in served:
            print_json(model)
        return
    print_table(
        ("NAME", "VERSION", "CELL", "LAYERS", "HIDDEN", "SYMBOLS", "PARAMETERS", "LABELS", "READ-OUTS", "STARTS"),
        [
            (
                model.name.removeprefix("models/"),
                model.version,
                model.cell.lower(),
                model.num_layers,
                model.hidden_size,
                _symbols(model),
                model.num_parameters,
                ",".join(model.labels) or "-",
                ",".join(read_out.name for read_out in model.read_outs) or "-",
                ",".join(model.initial_states),
            )
            for model in served
        ],
    )


def _symbols(model: Model) -> str:
    """How many characters, and the names of the symbols that are none and never generated."""
    if model.byte_level:
        return "bytes"
    return ", ".join([str(len(model.vocabulary)), *(name for name, _ in model.specials)])
