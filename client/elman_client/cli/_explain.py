"""``elman explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from elman_client.cli._completion import complete_model, complete_session
from elman_client.cli._inspected import Inspected, checked
from elman_client.cli._output import print_json, print_table
from elman_client.cli._remote import Remote, remote_options
from elman_client.cli._texts import plain, text_options

if TYPE_CHECKING:
    import elman_client

_CONTRIBUTIONS = 4  # of each candidate that are shown
_FORMULAS = {
    "H": "h = tanh(sum)",
    "UPDATE": "h = (1 - z) n + z h, with z (update) and n (candidate)",
    "OUTPUT": "c = f c + i g, h = o tanh(c), with i (input), f, g (cell) and o",
}


@click.command()
@click.argument("text", required=False)
@click.option("--model", metavar="NAME", shell_complete=complete_model, help="The model that reads TEXT.")
@click.option(
    "--session", metavar="NAME", shell_complete=complete_session, help="Read its transcript again, or TEXT after it."
)
@click.option("--position", type=int, metavar="N", help="Of the character whose step is explained. [default: the last]")
@click.option("--temperature", type=float, metavar="T", help="Divides the logits before the softmax. [default: 1]")
@click.option(
    "--units", "num_units", type=click.IntRange(min=0), default=4, show_default=True, help="Show N units a layer."
)
@text_options
@remote_options
def explain(
    remote: Remote,
    text: str | None,
    *,
    model: str | None,
    session: str | None,
    num_units: int,
    plain_quotes: bool,
    **options: Any,
) -> None:
    """Show the equations of one step with their numbers. It is the step that reads the last character of TEXT.

    \b
    For each layer the units that changed most: W_xh x, W_hh h, b, their sum
    and its tanh or sigmoid; then the likeliest next characters and the units
    that made them likely. With --json everything.

    \b
    Examples:
      elman explain hello --model elman-128
      elman explain --session my-session --position 120 --temperature 0.5
    """  # noqa: D301 - \\b is click's sign for lines to keep as they are
    checked(model, session, text, "TEXT")
    with remote.connect() as client:
        source = Inspected(client, model, session)
        if text is not None and plain_quotes:
            text = plain(text, source.model())
        step = source.explain(text, **options)
    if remote.as_json:
        print_json(step.to_dict())
        return
    click.echo(f"the step that reads {step.text!r} at position {step.position}")
    if step.gates_absent:
        click.echo(f"{step.gates_absent}")
    for layer in step.layers:
        _print_layer(layer, num_units)
    _print_candidates(step)


def _print_layer(layer: elman_client.LayerStep, num_units: int) -> None:
    changed = sorted(range(len(layer.h)), key=lambda unit: -abs(layer.h[unit] - layer.h_before[unit]))[:num_units]
    formulas = [_FORMULAS[gate.signal] for gate in layer.gates if gate.signal in _FORMULAS]
    click.echo(f"\nlayer {layer.layer}: {len(layer.h)} units{''.join(f', {formula}' for formula in formulas)}")
    rows = []
    for unit in changed:
        for gate in layer.gates:
            terms = (gate.input, gate.recurrent, gate.bias, gate.recurrent_bias, gate.pre_activation, gate.activation)
            name = "sum" if gate.signal == "H" else gate.signal.lower()
            rows.append((unit, name, *(f"{part[unit]:+.4f}" if part else "" for part in terms)))
        if layer.c:
            rows.append((unit, "c", *[""] * 4, f"{layer.c_before[unit]:+.4f} >", f"{layer.c[unit]:+.4f}"))
        rows.append((unit, "h", *[""] * 4, f"{layer.h_before[unit]:+.4f} >", f"{layer.h[unit]:+.4f}"))
    has_bias = any(gate.bias for gate in layer.gates)
    print_table(("UNIT", "GATE", "W_xh x" if has_bias else "W_xh x + b", "W_hh h", "b", "b_hh", "SUM", "VALUE"), rows)


def _print_candidates(step: elman_client.ExplainedStep) -> None:
    click.echo("\nnext")
    rows = []
    for candidate in step.candidates:
        parts = "  ".join(f"{c.unit}: {c.contribution:+.3f}" for c in candidate.contributions[:_CONTRIBUTIONS])
        shares = f"{candidate.bias:+.3f}  {parts}" if candidate.contributions else ""
        rows.append((repr(candidate.text), f"{candidate.probability:.4f}", f"{candidate.logit:+.4f}", shares))
    print_table(("CHARACTER", "PROBABILITY", "LOGIT", "BIAS, THEN THE LARGEST CONTRIBUTIONS BY UNIT"), rows)
