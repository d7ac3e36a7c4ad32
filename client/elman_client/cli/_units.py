"""``elman units``, and how units are named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

import elman_client
from elman_client.cli._completion import complete_model, complete_session
from elman_client.cli._inspected import Inspected, checked
from elman_client.cli._output import print_json, print_table
from elman_client.cli._remote import Remote, remote_options
from elman_client.cli._texts import Cleaner, decode, text_options

if TYPE_CHECKING:
    from elman_client import Signal

_NAME: Final = re.compile(r"([a-z]+)(\d+)(?:\.(\d+)|\[(\d+)\])?")


def unit_name(signal: Signal, layer: int, unit: int) -> str:
    """Return a unit's name, as ``c1.236``."""
    return f"{signal.lower()}{layer}.{unit}"


def units_of(name: str) -> elman_client.Units:
    """Return what ``c1.236``, ``c1[236]`` or, for a whole layer, ``c1`` means."""
    match = _NAME.fullmatch(name.lower())
    known = {str(signal).lower(): signal for signal in elman_client.Signal if signal != "UNSPECIFIED"}
    if not match or match[1] not in known:
        raise click.BadParameter(
            f"{name!r} is not a unit: write c1.236, or h0 for a layer; there are {', '.join(known)}"
        )
    unit = match[3] or match[4]
    return elman_client.Units(known[match[1]], int(match[2]), (int(unit),) if unit else ())


@click.command()
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--model", metavar="NAME", shell_complete=complete_model, help="The model that reads FILE.")
@click.option(
    "--session", metavar="NAME", shell_complete=complete_session, help="Read its transcript again, or FILE after it."
)
@click.option("--pattern", metavar="REGEX", help="Look for units that follow what a regular expression (RE2) matches.")
@click.option(
    "--property",
    "text_property",
    type=click.Choice([str(known).lower().replace("_", "-") for known in elman_client.TextProperty]),
    help="Or for units that follow a property of the text.",
)
@click.option("--count", "num_units", type=int, default=10, show_default=True, metavar="N", help="Show N units.")
@text_options
@remote_options
def units(
    remote: Remote,
    file: BinaryIO | None,
    *,
    model: str | None,
    session: str | None,
    text_property: str | None,
    plain_quotes: bool,
    **options: Any,
) -> None:
    """Print the units that follow a property of a text best. The text is that of FILE; "-" reads standard input.

    A unit is named by its signal and layer, and its number: c1.236 is number 236 of c in layer 1.

    \b
    Examples:
      elman units hamlet.txt --property line-position
      elman units --session my-session --pattern "[A-Z]+:"
    """  # noqa: D301 - \\b is click's sign for lines to keep as they are
    if (options["pattern"] is None) == (text_property is None):
        raise click.UsageError("choose one of --pattern and --property")
    checked(model, session, file, "FILE")
    if text_property is not None:
        options["text_property"] = elman_client.TextProperty(text_property.replace("-", "_").upper())
    text = None if file is None else decode(file.read(), file.name)
    with remote.connect() as client:
        source = Inspected(client, model, session)
        if text is not None and file is not None:
            text = Cleaner(file.name, source.model, plain_quotes=plain_quotes).clean(text)
        found = source.find_units(text, **options)
    if remote.as_json:
        print_json(found.to_dict())
        return
    rows = [
        (unit_name(u.signal, u.layer, u.unit), *(f"{x:+.3f}" for x in (u.correlation, u.mean_labelled, u.mean_other)))
        for u in found.units
    ]
    print_table(("UNIT", "CORRELATION", "MEAN LABELLED", "MEAN OTHER"), rows)
    click.echo(f"{found.num_labelled} of {found.num_characters} characters are labelled", err=True)
