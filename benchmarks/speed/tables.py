"""Tables: measured suites as Markdown, the claims that they bear out or not, and the block in docs/speed.md."""

from __future__ import annotations

import json
import math
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
Record = Mapping[str, Any]
"""A suite at some number of threads: ``suite``, ``threads``, ``title``, ``load``, ``rows``, ``machine``."""

MARKS = "<!-- {}: begin -->", "<!-- {}: end -->"
"""Comments in a Markdown file around what a program writes, by the name of the block."""


def timed(rows: Sequence[Row]) -> list[Row]:
    """The rows that have figures, the fastest first."""
    return sorted((row for row in rows if row["seconds"]), key=lambda row: row["median"])


def milliseconds(seconds: float) -> str:
    """Three significant digits.

    Example:
        >>> milliseconds(0.012345), milliseconds(1.5)
        ('12.3', '1500')
    """
    value = 1e3 * seconds
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{digits}f}"


def ratio(row: Row, other: Row, clock: str = "seconds") -> float:
    """Time per step in units of another row's: the median over the rounds that both have.

    Args:
        row: whose time.
        other: in units of whose.
        clock: ``"seconds"`` of the wall, or ``"cpu_seconds"`` of the processor, which other programs do not lengthen.
    """
    theirs = dict(zip(other["rounds"], other[clock], strict=True))
    mine = dict(zip(row["rounds"], row[clock], strict=True))
    return statistics.median(mine[number] / theirs[number] for number in mine.keys() & theirs.keys())


def fastest(rows: Sequence[Row], kind: str) -> Row | None:
    """The row with the smallest median of a kind: ``"peer"``, or a word within the label of what is no peer."""
    for row in timed(rows):
        if row["peer"] if kind == "peer" else (not row["peer"] and kind in row["label"]):
            return row
    return None


HEADINGS = (
    "",
    "ms per step",
    "quartiles",
    "fastest peer = 1",
    "processor ms",
    "fastest peer = 1",
    "spikes %",
    "peak MB",
    "first step s",
    "",
)


def markdown(record: Record) -> str:
    """One suite as a Markdown table, the fastest first."""
    reference = fastest(record["rows"], "peer")
    threads = f"{record['threads']} thread" + ("s" if record["threads"] > 1 else "")
    lines = [f"**{record['title']}, {threads}**", "", f"| {' | '.join(HEADINGS)} |"]
    lines.append("|---|" + "--:|" * (len(HEADINGS) - 2) + "---|")
    for row in timed(record["rows"]):
        ratios = [f"{ratio(row, reference, clock):.2f}" if reference else "" for clock in ("seconds", "cpu_seconds")]
        cells = (
            row["label"] if row["peer"] or "neko" not in row["label"] else f"**{row['label']}**",
            milliseconds(row["median"]),
            f"{milliseconds(row['low'])} to {milliseconds(row['high'])}",
            ratios[0],
            milliseconds(row["cpu"]),
            ratios[1],
            " ".join(f"{100 * rate:.1f}" for rate in row["rates"]),
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['first_seconds']:.1f}",
            row["note"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\nLeft out: {row['label']} ({row['error']})." for row in record["rows"] if row["error"]]
    return "\n".join(lines)


def identity(record: Record) -> tuple[str, int, str]:
    """What a new measurement has in common with the one that it replaces."""
    return record["suite"], record["threads"], record["machine"]["processor"]


def by_processor(records: Sequence[Record]) -> list[list[Record]]:
    """The records of every processor, those of the one with most of them first, and of several such the latest."""

    def rank(own: Sequence[Record]) -> tuple[int, str]:
        # The oldest records have no date.
        return len(own), max(record.get("date", "") for record in own)

    # Of one day, that which came last.
    found = _grouped(records, lambda record: record["machine"]["processor"])[::-1]
    return sorted(found, key=rank, reverse=True)


def _grouped(records: Sequence[Record], key: Callable[[Record], str]) -> list[list[Record]]:
    """Records with one key together, in the order in which keys are met."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return list(found.values())


def described(records: Sequence[Record]) -> str:
    """Every machine and its libraries, in a paragraph each that says what was measured there."""
    machines = _grouped(records, lambda record: json.dumps(record["machine"], sort_keys=True))
    return "\n\n".join(_paragraph(own, len(machines) > 1) for own in machines)


def _paragraph(records: Sequence[Record], named: bool) -> str:
    """The one machine of some records."""

    def listed(found: Mapping[str, str]) -> str:
        return ", ".join(f"{name} {version}" for name, version in found.items())

    machine = records[0]["machine"]
    suites = ", ".join(dict.fromkeys(f"{record['suite']} with {record['threads']}" for record in records))
    loads = [load for record in records for load in record["load"]]
    rounds = sorted({record["rounds"] for record in records})
    text = f"{suites} thread(s): " if named else ""
    text += (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB; {machine['system']}, "
        f"Python {machine['python']}. This package: {listed(machine['libraries'])}. Peers: {listed(machine['peers'])}. "
        f"Rounds: {' or '.join(map(str, rounds))}. Processes that wanted a core before and after a suite (load "
        f"average): {min(loads):g} to {max(loads):g}."
    )
    return textwrap.fill(text, 120)


def write_block(path: Path, text: str, name: str = "measured") -> None:
    """Put a text between the two marks of a block of a file, in place of what stood there."""
    begin, end = (mark.format(name) for mark in MARKS)
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8")


def read_records(path: Path) -> dict[str, Any]:
    """What has been measured so far: ``records``, each with its ``machine``."""
    if not path.exists():
        return {"records": []}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
