"""Showing: what a run or a comparison was and has found, on the terminal, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neko_rules.experiments import sampling
from neko_rules.experiments.compare import FOLDER
from neko_rules.experiments.folder import RunFolder
from neko_rules.experiments.parts import shortened
from neko_rules.experiments.yaml_file import read_mapping
from neko_rules.report import tables
from neko_rules.trainers import Comparison

if TYPE_CHECKING:
    from rich.console import Console

    from neko_rules.experiments.run import Outcome


def show(path: Path, console: Console) -> None:
    """What a run was, its curves and its last figures; of a comparison its tables.

    Raises:
        NekoError: no run has been written there, or its files are damaged.
    """
    folder = RunFolder.existing(path)
    configuration, records, summary = (
        read_mapping(folder.config),
        folder.read_metrics(),
        folder.read_json("summary.json"),
    )
    # Of every part only what differs from its defaults.
    described = {key: shortened(value, key) for key, value in configuration.items()}
    entries = sum(each.size for each in folder.read_weights().values()) if folder.weights.exists() else None
    console.print(f"[bold]{configuration.get('name', path.name)}[/bold]", highlight=False)
    console.print(tables.description_table(described, summary.get("parameters", entries)))
    console.print()
    if sampling.is_sampling(configuration.get("rule")):
        for drawn in sampling.trace_lines(folder, console.width):
            console.print(drawn, highlight=False, soft_wrap=True)
        show_sampled(folder, console)
        return
    compared = any((path / FOLDER).glob("figures-*.npz"))
    if compared:
        show_tables(Comparison.load(path / FOLDER), console)
    # One epoch is a dot and no curve: the table says it all.
    if len(records) > 1:
        for line in tables.curves(records, console.width, _loss_of(configuration)):
            console.print(line, soft_wrap=True)
        console.print()
    if records:
        console.print(tables.figures_table(records))
        console.print()
    train = configuration.get("train")
    epochs = train.get("epochs", len(records)) if isinstance(train, dict) else len(records)
    status, reason = str(summary.get("status", "unfinished")), str(summary.get("reason", ""))
    _show_crossbar(summary, console)
    console.print(tables.status_line(status, reason, len(records), epochs, float(summary.get("seconds") or 0.0)))
    show_paths(console, figure=folder.figure)
    if compared:
        show_comparison_figure(folder, console)


def show_outcome(outcome: Outcome | sampling.Drawn, console: Console) -> None:
    """The last figures of a run that has just ended, how it ended, and where it lies."""
    if isinstance(outcome, sampling.Drawn):
        show_sampled(outcome.folder, console)
    else:
        records = outcome.history.epochs
        if records:
            console.print()
            console.print(tables.figures_table(records))
            console.print()
        _show_crossbar(outcome.summary(), console)
        epochs = read_mapping(outcome.folder.config)["train"]["epochs"]
        console.print(tables.status_line(outcome.status, outcome.reason, len(records), epochs, outcome.seconds))
    show_paths(console, folder=outcome.folder.path)


def _show_crossbar(summary: Mapping[str, Any], console: Console) -> None:
    for line in tables.crossbar_lines(summary):
        console.print(line, highlight=False, soft_wrap=True)


def show_tables(result: Comparison, console: Console) -> None:
    """How near every rule comes to the reference: its gradients, and its changes of the weights."""
    for quantity in ("gradient", "change"):
        console.print(result.table(quantity))
        console.print()


def show_comparison_figure(folder: RunFolder, console: Console) -> None:
    """Where the figure of a comparison lies, if it has one: no batch may have been kept."""
    show_paths(console, figure=folder.path / FOLDER / "comparison.png")


def show_sampled(folder: RunFolder, console: Console) -> None:
    """What a sampling run found, how it ended, and where its figure lies."""
    for found in sampling.lines(folder.read_json("summary.json")):
        console.print(found, highlight=False, soft_wrap=True)
    console.print(sampling.status(folder))
    show_paths(console, figure=folder.path / sampling.FIGURE)


def show_paths(console: Console, **paths: Path) -> None:
    """Files and folders that exist, each in a line with the word for it."""
    for word, path in paths.items():
        if path.exists():
            console.print(f"{word}  {tables.shown_path(path)}", highlight=False, soft_wrap=True)


def _loss_of(configuration: Mapping[str, Any]) -> str:
    loss = configuration.get("loss")
    return str(loss.get("name", "")) if isinstance(loss, dict) else ""
