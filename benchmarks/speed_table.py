"""Seconds per training step beside every peer, on the workloads A to E: JSON, Markdown and a figure in one command.

    python benchmarks/speed_table.py --peers .peers/bin/python                  # everything, about two hours
    python benchmarks/speed_table.py --peers .peers/bin/python --suites A B --threads 1 --rounds 5
    python benchmarks/speed_table.py --suites C --only 'neko (numpy|torch)|plain'    # a look: nothing is kept
    python benchmarks/speed_table.py --suites                                   # measures nothing, writes the docs

Peers live in an environment of their own, since their needs differ from this package's:

    python3.11 -m venv .peers && .peers/bin/pip install -r benchmarks/peers.txt

Every contender is a process of its own with pinned threads, kept alive and asked for one step at a time, in random
order over rounds; ratios are taken within rounds. A suite at some number of threads replaces what was measured of it
before on such a processor in docs/results/speed.json; from all that is there the tables in docs/speed.md and the figure
are made anew: the claims of every processor, and the rows of the one that most suites were measured on, or the latest.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from neko_rules.experiments.workloads import WORKLOADS
from speed import claims
from speed.arena import Arena, machine
from speed.figures import by_suite
from speed.suites import SUITES, suite
from speed.tables import by_processor, described, identity, markdown, read_records, write_block

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS = DOCS / "results" / "speed.json"


def measured(arena: Arena, name: str, threads: int) -> dict[str, Any]:
    """One suite at some number of threads."""
    begin, load = time.time(), os.getloadavg()[0]
    results = arena.run(suite(name), threads, f"{name}, {threads} thread(s)")
    return {
        "suite": name,
        "threads": threads,
        "title": WORKLOADS[name].title(),
        "rounds": arena.rounds,
        "date": time.strftime("%Y-%m-%d"),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "minutes": round((time.time() - begin) / 60, 1),
        "rows": [result.summary() for result in results],
    }


def write_docs(kept: dict[str, Any]) -> None:
    """The block in docs/speed.md and the figure, from everything that has been kept."""
    records = sorted(kept["records"], key=lambda record: (SUITES.index(record["suite"]), record["threads"]))
    machines = by_processor(records)
    parts = [text for own in machines for text in (described(own), claims.markdown(own))]
    write_block(DOCS / "speed.md", "\n\n".join([*parts, *map(markdown, machines[0])]))
    by_suite(machines[0]).savefig(DOCS / "figures" / "speed.png", dpi=200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="*", choices=SUITES, default=list(SUITES), metavar="SUITE")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", default=sys.executable, help="Python of the peers' environment")
    parser.add_argument("--only", default="", help="regular expression of labels; nothing is kept")
    options = parser.parse_args()
    arena = Arena(options.peers, options.rounds, options.only)
    kept = read_records(RESULTS)
    for name in options.suites:
        for threads in options.threads:
            record = measured(arena, name, threads)
            text = f"{markdown(record)}\n\n{claims.markdown([record])}\n"
            Console(width=200).print(text, markup=False, highlight=False, soft_wrap=True)
            if not options.only:
                record["machine"] = machine(options.peers)
                others = [r for r in kept["records"] if identity(r) != identity(record)]
                kept = {"records": [*others, record]}
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if kept["records"] and not options.only:
        write_docs(kept)


if __name__ == "__main__":
    main()
