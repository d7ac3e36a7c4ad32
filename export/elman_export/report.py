"""What verification found, for people and for scripts."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from elman_export.errors import DifferenceError

ROWS = "itself, other batches"
PREFILL = "itself, prefill"

_REMEDIES = {
    ROWS: "rows must neither see one another nor depend on chance, so take out means over the batch, "
    "batch normalisation in training mode and dropout",
    PREFILL: "export it again without changing the graphs, or report a bug of the exporter",
}
_REMEDY = (
    "see that it was made from this source, and that the source depends on char and state alone "
    "(no dropout, no memory of its own)"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The largest difference between an artefact and something else.

    Attributes:
        against: What it was compared with.
        batch: Rows at a time.
        difference: The largest over all steps, logits and states; NaN if one was not finite.
        limit: What is allowed: 0 where every bit must agree, None where nothing is asked.
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
    """All findings, and what a person should know about them."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def require(self) -> None:
        """Do nothing if all is well.

        Raises:
            DifferenceError: It is not; the sentence tells of the first failure.
        """
        for finding in self._failures():
            if math.isnan(finding.difference):
                raise DifferenceError(
                    "Logits or states are not finite after random characters: keep them finite, "
                    "for nothing can be sampled from them."
                )
            raise DifferenceError(
                f"The artefact differs from {finding.against} by {finding.difference:.1e} at "
                f"batch {finding.batch}, allowed is {finding.limit:.0e}: "
                f"{_REMEDIES.get(finding.against, _REMEDY)}."
            )

    def to_json(self) -> dict[str, Any]:
        """The same as JSON can hold it; a difference that is not finite is null."""
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
        """One line a finding."""
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
