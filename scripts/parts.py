"""What the image holds: an SBOM, which the wheel carries in `.dist-info/sboms`, and a list of licences.

`make parts` writes sbom/elman.cdx.json (CycloneDX) and docs/licences.md: elman with the extras of server/Dockerfile,
in the versions of constraints.txt, as they are installed here.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parent.parent
SBOM: Final = ROOT / "sbom/elman.cdx.json"
LICENCES: Final = ROOT / "docs/licences.md"
_PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_PINNED: Final = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
# Of packages whose metadata have a title instead of an SPDX expression.
_SPDX: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "MIT License": "MIT",
}


def needs() -> dict[str, set[str]]:
    """Return the packages that the image holds, and which of them each one asks for.

    Raises:
        SystemExit: one is installed in another version than that of constraints.txt.
    """
    extras = re.search(r"extra in \(([^)]*)\)", (ROOT / "server/Dockerfile").read_text())
    assert extras is not None
    lines = [line for extra in re.findall(r"\w+", extras[1]) for line in _PROJECT["optional-dependencies"][extra]]
    found: dict[str, set[str]] = {}

    def ask(asker: str, lines: list[str], wanted: frozenset[str]) -> None:
        mine = found.setdefault(asker, set())
        for requirement in map(Requirement, lines):
            environments = [{"extra": extra} for extra in ("", *wanted)]
            if requirement.marker and not any(map(requirement.marker.evaluate, environments)):
                continue
            name = canonicalize_name(requirement.name)
            mine.add(name)
            if name not in found or requirement.extras:
                ask(name, metadata.requires(name) or [], frozenset(requirement.extras))

    ask("elman", [*_PROJECT["dependencies"], *lines], frozenset())
    pinned = {canonicalize_name(name): version for name, version in _PINNED.items()}
    others = [
        name for name in found if name != "elman" and metadata.version(name) != pinned.get(canonicalize_name(name))
    ]
    if others:
        sys.exit(f"not in the versions of constraints.txt: {', '.join(sorted(others))}; `make clean` and run it again")
    return found


@cache
def licence_of(name: str) -> str:
    """Return a package's licence as an SPDX expression; raises SystemExit if it does not say."""
    if name == "elman":
        return str(_PROJECT["license"])
    said = metadata.metadata(name)
    if "License-Expression" in said:
        return said["License-Expression"]
    titles = [line.rpartition(" :: ")[2] for line in said.get_all("Classifier") or [] if line.startswith("License ::")]
    known = {_SPDX[title] for title in (*titles, *(said.get_all("License") or ())) if title in _SPDX}
    if not known:
        sys.exit(f"{name} does not say its licence in a known way; add it to scripts/parts.py")
    return " AND ".join(sorted(known))


def version_of(name: str) -> str:
    """Return a package's version."""
    return str(_PROJECT["version"]) if name == "elman" else metadata.version(name)


def sbom() -> str:
    """Return the SBOM. It has no time and no random number: the same parts give the same bytes."""
    found = needs()
    licences = LicenseFactory()
    parts = {
        name: Component(
            name=name,
            version=version_of(name),
            type=ComponentType.APPLICATION if name == "elman" else ComponentType.LIBRARY,
            licenses=[licences.make_from_string(licence_of(name))],
            purl=PackageURL("pypi", name=name, version=version_of(name)),
            bom_ref=f"{name}=={version_of(name)}",
        )
        for name in found
    }
    bom = Bom(components=[part for name, part in parts.items() if name != "elman"])
    bom.metadata.component = parts["elman"]
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, " ".join(sorted(str(part.purl) for part in parts.values())))
    for name, asked in found.items():
        bom.register_dependency(parts[name], [parts[other] for other in asked])
    found_parts = json.loads(JsonV1Dot6(bom).output_as_string())
    del found_parts["metadata"]["timestamp"]
    return json.dumps(found_parts, indent=1) + "\n"


def licences() -> str:
    """Return docs/licences.md."""
    rows = "".join(f"| {name} | {version_of(name)} | {licence_of(name)} |\n" for name in sorted(needs()))
    return (
        "# Licences\n\n"
        "What the image holds beside Debian's Python: Elman and the libraries of its extras, as their own metadata\n"
        "say. `make parts` writes this. The wheel has the same as CycloneDX, beside its metadata.\n\n"
        f"| package | version | licence |\n|---|---|---|\n{rows}"
    )


def main() -> None:
    """Write both files; with `--check` compare them, and end with status 1 where they differ."""
    fresh = {SBOM: sbom(), LICENCES: licences()}
    if "--check" in sys.argv[1:]:
        if stale := [path.name for path, text in fresh.items() if not path.exists() or path.read_text() != text]:
            sys.exit(f"{', '.join(stale)}: not what is installed; run `make parts`")
        return
    for path, text in fresh.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
