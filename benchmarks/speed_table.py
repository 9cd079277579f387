"""Seconds per training step beside every peer, on the workloads A to D: JSON, Markdown and a figure in one command.

    python benchmarks/speed_table.py --peers .peers/bin/python                  # everything, about an hour
    python benchmarks/speed_table.py --peers .peers/bin/python --suites A B --threads 1 --rounds 5
    python benchmarks/speed_table.py --suites C --only 'neko (numpy|torch)|plain'
    python benchmarks/speed_table.py --docs                                     # only write the docs again

Peers live in an environment of their own, since their needs differ from this package's:

    python3.11 -m venv .peers && .peers/bin/pip install -r benchmarks/peers.txt

Every contender is a process of its own with pinned threads, kept alive and asked for one step at a time, in random
order over rounds; ratios are taken within rounds. What is measured joins docs/results/speed.json, in which a suite at
some number of threads replaces the one before; with --only nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from speed.arena import Arena, machine
from speed.suites import SUITES, suite
from speed.tables import markdown, read_records

from neko_rules.experiments.workloads import WORKLOADS

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS = DOCS / "results" / "speed.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", choices=SUITES, default=list(SUITES), metavar="SUITE")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", default=sys.executable, help="Python of the peers' environment")
    parser.add_argument("--only", default="", help="regular expression of labels; nothing is kept")
    options = parser.parse_args()
    arena = Arena(options.peers, options.rounds, options.only)
    kept = read_records(RESULTS)
    for name in options.suites:
        for threads in options.threads:
            begin, load = time.time(), os.getloadavg()
            results = arena.run(suite(name), threads, f"{name}, {threads} threads")
            record = {
                "suite": name,
                "threads": threads,
                "title": WORKLOADS[name].title(),
                "rounds": options.rounds,
                "load": [load, os.getloadavg()],
                "minutes": round((time.time() - begin) / 60, 1),
                "rows": [result.summary() for result in results],
            }
            Console(width=200).print(markdown(record), markup=False, highlight=False, soft_wrap=True)
            if not options.only:
                others = [r for r in kept["records"] if (r["suite"], r["threads"]) != (name, threads)]
                kept = {"machine": machine(options.peers), "records": [*others, record]}
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
