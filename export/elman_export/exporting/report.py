"""The findings of verification, as text and as JSON."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from elman_export.errors import DifferenceError

ROWS = "itself, other batches"
PREFILL = "itself, prefill"

_REMEDIES = {
    ROWS: "rows must be independent of one another and deterministic: remove means over the batch, "
    "batch normalisation in training mode and dropout",
    PREFILL: "export it again without changing the graphs, or report a bug of the exporter",
}
_REMEDY = (
    "see that it was made from this source, and that the source depends on char and state alone "
    "(no dropout, no state inside the module)"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The largest difference between an artefact and something else.

    Attributes:
        against: What it was compared with.
        batch: Rows at a time.
        difference: The largest over all steps, logits and states; NaN if one was not finite.
        limit: The largest allowed: 0 where every bit must agree, None without a limit.
    """

    against: str
    batch: int
    difference: float
    limit: float | None

    @property
    def passed(self) -> bool:
        """Whether the difference is allowed."""
        return self.limit is None or self.difference <= self.limit


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, with notes."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def require(self) -> None:
        """Return if every finding passed.

        Raises:
            DifferenceError: One did not; the message names the first.
        """
        for finding in self._failures():
            if math.isnan(finding.difference):
                raise DifferenceError(
                    "Logits or states are not finite after random characters: keep them finite, "
                    "because no text can be sampled from them."
                )
            raise DifferenceError(
                f"The artefact differs from {finding.against} by {finding.difference:.1e} at "
                f"batch {finding.batch}, allowed is {finding.limit:.0e}: "
                f"{_REMEDIES.get(finding.against, _REMEDY)}."
            )

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON value; a difference that is not finite is null."""
        return {
            "passed": not any(self._failures()),
            "findings": [
                {
                    **asdict(finding),
                    "difference": finding.difference if math.isfinite(finding.difference) else None,
                    "passed": finding.passed,
                }
                for finding in self.findings
            ],
            "notes": list(self.notes),
        }

    def to_table(self) -> Table:
        """One line for each finding."""
        table = Table("compared with", "batch", "largest difference", "allowed", "")
        for finding in self.findings:
            table.add_row(
                finding.against,
                str(finding.batch),
                f"{finding.difference:.1e}" if finding.difference else "0",
                "any" if finding.limit is None else f"{finding.limit:.0e}" if finding.limit else "0",
                "ok" if finding.passed else "DIFFERS",
            )
        return table

    def _failures(self) -> Iterator[Finding]:
        return (finding for finding in self.findings if not finding.passed)
