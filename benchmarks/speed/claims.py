"""Claims: what this package says of its speed, each with the measured ratio that bears it out or does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from speed.suites import BACKENDS, DENSE, QUOTED
from speed.tables import Record, Row, fastest, ratio, timed


@dataclass(frozen=True)
class Claim:
    """A ratio that must not be above a bound.

    Args:
        statement: what is compared.
        threads: of both.
        most: the bound.
        measured: the ratio of seconds.
        processor: the ratio of seconds of the processor, which tell of the work where other programs ran beside.
        between: labels of the two.
    """

    statement: str
    threads: int
    most: float
    measured: float
    processor: float
    between: str

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.measured <= self.most


def library(row: Row) -> str:
    """The array library that a contender runs on."""
    if row["peer"]:
        return str(row["contender"]).removeprefix("speed.").partition("_")[0]
    return str(row["options"].get("backend", ""))


def compared(statement: str, record: Record, most: float, row: Row | None, other: Row | None) -> Iterator[Claim]:
    """The claim that a row takes at most so many times as long as another, if both were measured."""
    if row is not None and other is not None:
        names = f"{row['label']} : {other['label']}"
        yield Claim(statement, record["threads"], most, ratio(row, other), ratio(row, other, "cpu_seconds"), names)


def among(rows: Sequence[Row], backend: str) -> list[Row]:
    """The rows that run on a library."""
    return [row for row in rows if library(row) == backend]


def libraries(rows: Sequence[Row]) -> list[Row]:
    """The rows of peers that are libraries, loops written by hand left out."""
    return [row for row in rows if row["peer"] and not row["label"].startswith("plain")]


def ours(rows: Sequence[Row], rule: str) -> Row | None:
    """This package's fastest by a rule."""
    mine = [row for row in rows if row["label"].startswith("neko") and row["label"].endswith(rule)]
    return next(iter(timed(mine)), None)


def claims_of(record: Record) -> Iterator[Claim]:
    """Every claim that a suite is about."""
    rows, name = record["rows"], record["suite"]
    peers = {"fastest peer": fastest(rows, "peer"), "fastest library": fastest(libraries(rows), "peer")}
    if name in ("A", "A LIF"):
        for rule in ("e-prop", "BPTT"):
            by_rule = [row for row in rows if row["peer"] and row["label"].endswith(f", {rule}")]
            for kind, peer in {**peers, f"fastest peer by {rule}": fastest(by_rule, "peer")}.items():
                yield from compared(f"{name}: {rule} : {kind}", record, 1 / 3, ours(rows, rule), peer)
    if name == "A":
        for backend in BACKENDS:
            on_it = among(rows, backend)
            statement = f"A: on {backend} : fastest peer on {backend}"
            yield from compared(statement, record, 1, fastest(on_it, "neko"), fastest(on_it, "peer"))
            alone = f"neko {backend} by XLA"
            yield from compared(f"{statement}, by XLA alone", record, 1, fastest(on_it, alone), fastest(on_it, "peer"))
    if name in ("B", "B LIF"):
        for kind, peer in peers.items():
            yield from compared(f"{name} : {kind}", record, 1 / 2, fastest(rows, "neko"), peer)
    for rule, most in {"pp-prop": 1 / 3 if name.startswith("A") else 1 / 2, "RTRL, online": 1 / 2}.items():
        for row in (row for row in rows if row["peer"] and row["label"].endswith(f", {rule}")):
            yield from compared(f"{name}: {rule} : the same rule", record, most, ours(rows, rule), row)
    if name == "C":
        for kind, peer in peers.items():
            yield from compared(f"C : {kind}", record, 1 / 3, fastest(rows, "neko"), peer)
    if name == "C 30 %":
        yield from compared("C at 30 % : dense products", record, 1, fastest(rows, "neko"), fastest(rows, DENSE))
    if name == "E":
        # A loop by hand is one call of a compiled function, which looks at nothing that it is given.
        for most, (kind, peer) in zip((1, 1 / 2), peers.items(), strict=True):
            yield from compared(f"E : {kind}", record, most, fastest(rows, "neko"), peer)
    if name in QUOTED:
        mine = fastest(rows, "neko")
        if mine is not None:
            between = f"{mine['label']} : mlGeNN, quoted {1e3 * QUOTED[name]:g} ms"
            measured, processor = mine["median"] / QUOTED[name], mine["cpu"] / QUOTED[name]
            yield Claim(f"{name} : mlGeNN", record["threads"], 1 / 10, measured, processor, between)
    for backend in BACKENDS:
        on_it = [row for row in among(rows, backend) if not row["peer"] and not row["options"].get("alone")]
        eprop, bptt = (ours(on_it, rule) for rule in ("e-prop", "BPTT"))
        yield from compared(f"{name}: e-prop : BPTT", record, 1, eprop, bptt)
        if name == "B LIF":
            for rule in ("e-prop", "OTTT"):
                for kind in ("online", "online every 20", "online every 100"):
                    pair = ours(on_it, f"{rule}, {kind}"), ours(on_it, f", {rule}")
                    yield from compared(f"{name}: {rule}, {kind} : deferred", record, 2, *pair)


def markdown(records: Sequence[Record]) -> str:
    """All claims as a Markdown table."""
    lines = ["| | threads | at most | measured | processor | | between |", "|---|--:|--:|--:|--:|---|---|"]
    for record in records:
        for claim in claims_of(record):
            sign = "holds" if claim.holds else "**does not hold**"
            ratios = [f"{value:.2f}" for value in (claim.most, claim.measured, claim.processor)]
            cells = (claim.statement, str(claim.threads), *ratios, sign, claim.between)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
