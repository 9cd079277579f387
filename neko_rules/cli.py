"""The command line: ``neko run``, ``neko list``, ``neko explain``, ``neko show``.

Whatever a user can get wrong is answered by one sentence on the standard error stream and exit code 2; Ctrl-C ends with
130. NumPy and all that is heavy is imported inside the commands, so that help is immediate and the number of threads
can still be set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neko_rules import __version__
from neko_rules.errors import ArgumentError, NekoError

if TYPE_CHECKING:
    from rich.console import Console

    from neko_rules.experiments.run import Outcome

WRONG, INTERRUPTED = 2, 130
"""Exit codes: something in the command, a file or the numbers was wrong; ended by Ctrl-C (128 + SIGINT)."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

WIDE = 200
"""Columns for output that goes to a file or a pipe, where nothing is gained by breaking lines."""

UsageError: Any = typer.BadParameter.__base__
"""What the parser of the command line raises; typer brings its own or that of click, depending on its version."""

app = typer.Typer(
    name="neko",
    help="Learning rules for spiking and other recurrent networks.",
    epilog="Try: neko run configs/mnist1d_eprop.yaml",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

RUN_EXAMPLES = """[bold]Examples[/bold]

neko run configs/mnist1d_eprop.yaml

neko run configs/mnist_eprop.yaml --set rule.mode=random --set backend=jax --seed 3

neko run my.yaml --set train.epochs=5 --out runs/first

neko run --resume runs/first --set train.epochs=20"""


@app.callback(invoke_without_command=True)
def neko(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Learning rules for spiking and other recurrent networks."""
    if version:
        typer.echo(f"neko_rules {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(epilog=RUN_EXAMPLES)
def run(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file, such as configs/mnist1d_eprop.yaml.", show_default=False)
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one value, such as rule.mode=random.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of weights, feedback and order of examples.", show_default="the file's"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write, new or empty.", show_default="runs/NAME-TIME")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.", show_default=False)] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="CPU threads of the linear algebra; more than one is slower for small networks.",
            show_default="1",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")] = False,
) -> None:
    """Train a network by a learning rule, as a YAML file says, and write everything to a folder."""
    if threads is not None:
        _limit_threads(threads)
    outcome = _run(config, setting or [], seed, out, resume, progress=not quiet)
    if not quiet:
        _print_outcome(outcome)
    if outcome.status == "interrupted":
        _say(f"Interrupted; go on with: neko run --resume {outcome.folder.path}", "yellow")
        raise typer.Exit(INTERRUPTED)


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="rules, models, neurons, losses, metrics, optimizers, schedules, clippings, regularizers, surrogates, "
            "initializers, datasets or backends.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show every part that can be named in a configuration, with a line on what it is."""
    from rich.table import Table
    from rich.text import Text

    from neko_rules.experiments.listing import KINDS, backends, listing

    if kind == "rules":
        _print_rules()
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="bold cyan", no_wrap=True)
    if kind == "backends":
        table.add_column(no_wrap=True)
        for name, installed, line in backends():
            table.add_row(name, Text("installed", "green") if installed else Text("not installed", "dim"), Text(line))
    elif kind is None:
        for each in KINDS:
            table.add_row(each, Text(", ".join(name for name, _ in listing(each))))
    else:
        for name, line in listing(kind):
            table.add_row(name, Text(line))
    _console().print(table)


EXPLAIN_EXAMPLES = """[bold]Examples[/bold]

neko explain eprop

neko explain alif

neko explain adam"""


@app.command(epilog=EXPLAIN_EXAMPLES)
def explain(name: Annotated[str, typer.Argument(help="A rule, neuron, loss, optimizer … such as eprop.")]) -> None:
    """Explain a part that can be named: its equations, limits, cost and paper."""
    from rich.table import Table
    from rich.text import Text

    from neko_rules.experiments.explaining import explanation

    found, console = explanation(name), _console()
    console.print(Text.assemble((found.name, "bold cyan"), f"   one of the {found.kind}"))
    console.print()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, text in found.facts.items():
        table.add_row(key, Text(text or "not stated"))
    if found.facts:
        console.print(table)
        console.print()
    for text in (found.head, found.body):
        console.print(Text(text), soft_wrap=True)
        console.print()


@app.command()
def show(folder: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/mnist-20260131-120005.")]) -> None:
    """Show what a run was, its learning curve and its last figures."""
    from neko_rules.experiments.folder import RunFolder
    from neko_rules.experiments.parts import shortened
    from neko_rules.experiments.yaml_file import read_mapping
    from neko_rules.report import tables

    written = RunFolder.existing(folder)
    configuration, records, summary = (
        read_mapping(written.config),
        written.read_metrics(),
        written.read_json("summary.json"),
    )
    # Of every part only what differs from its defaults.
    described = {key: shortened(value, key) for key, value in configuration.items()}
    parameters = sum(each.size for each in written.read_weights().values()) if written.weights.exists() else None
    console = _console()
    console.print(f"[bold]{configuration.get('name', folder.name)}[/bold]", highlight=False)
    console.print(tables.description_table(described, parameters))
    console.print()
    if records:
        loss = configuration.get("loss")
        name = str(loss.get("name", "")) if isinstance(loss, dict) else ""
        for line in tables.curves(records, console.width, name):
            console.print(line, soft_wrap=True)
        console.print()
        console.print(tables.figures_table(records))
        console.print()
    train = configuration.get("train")
    epochs = train.get("epochs", len(records)) if isinstance(train, dict) else len(records)
    status, reason = str(summary.get("status", "unfinished")), str(summary.get("reason", ""))
    console.print(tables.status_line(status, reason, len(records), epochs, float(summary.get("seconds") or 0.0)))
    if written.figure.exists():
        console.print(f"figure  {tables.shown_path(written.figure)}", highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Example:
        >>> main(["--version"])
        neko_rules ...
        0
        >>> main(["list", "surogates"])
        2
    """
    for name in THREADS:
        # Stepping through time multiplies small matrices, for which handing the work to threads takes far longer than
        # the work. The variables are read when NumPy is imported, which nothing has done yet.
        os.environ.setdefault(name, "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the terminal's encoding lacks a character, a "?" will do
    try:
        code = app(list(arguments) if arguments is not None else None, standalone_mode=False, prog_name="neko")
    except NekoError as error:
        _say(str(error), "bold red", "Error: ")
        return WRONG
    except UsageError as error:
        _say(_usage(error), "bold red", "Error: ")
        return WRONG
    except (KeyboardInterrupt, typer.Abort):
        _say("Interrupted.", "yellow")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe, such as head, has seen enough; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # What the operating system refuses (a full disk, a name too long) is no fault of the program: say it in a line.
        where = f": {error.filename}" if error.filename else ""
        sentence = NekoError("the operating system must let neko read and write its files", f"{error.strerror}{where}")
        _say(str(sentence), "bold red", "Error: ")
        return WRONG
    return code if isinstance(code, int) else 0


def _print_rules() -> None:
    """Every rule: its point on the axes, what it costs, what it needs and what it equals."""
    from rich.table import Table
    from rich.text import Text

    from neko_rules.experiments.explaining import rule_facts

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("rule", style="bold cyan", no_wrap=True)
    for heading in ("temporal · spatial · signal", "operations", "memory", "needs", "equals", "paper"):
        table.add_column(heading, overflow="fold")
    for row in rule_facts():
        texts = (row.axes, row.time, row.memory, row.requires, row.identity, row.paper)
        table.add_row(row.name, *(Text(text) for text in texts))
    console = _console()
    console.print(table)
    console.print()
    legend = "N neurons, K outputs, P parameters, T time steps; 'neko explain RULE' gives its equations and limits."
    console.print(legend, style="dim")


def _run(
    config: Path | None, settings: list[str], seed: int | None, out: Path | None, resume: Path | None, progress: bool
) -> Outcome:
    if (config is None) == (resume is None):
        received = "neither" if config is None else "both"
        raise ArgumentError(
            "run needs a configuration file or --resume with the folder of a run",
            received=received,
            works="write for example: neko run configs/mnist1d_eprop.yaml",
        )
    from neko_rules.experiments import run as runs

    if resume is None:
        assert config is not None, "one of the two is given"
        return runs.run(config, settings, seed, out, progress)
    if seed is not None or out is not None:
        raise ArgumentError("--resume keeps the seed and the folder of the run", works="leave --seed and --out out")
    return runs.resume(resume, settings, progress)


def _limit_threads(threads: int) -> None:
    for name in THREADS:
        os.environ[name] = str(threads)


def _print_outcome(outcome: Outcome) -> None:
    from neko_rules.experiments.yaml_file import read_mapping
    from neko_rules.report import tables

    console = _console()
    records = outcome.history.epochs
    if records:
        console.print()
        console.print(tables.figures_table(records))
        console.print()
    epochs = read_mapping(outcome.folder.config)["train"]["epochs"]
    console.print(tables.status_line(outcome.status, outcome.reason, len(records), epochs, outcome.seconds))
    console.print(f"folder  {tables.shown_path(outcome.folder.path)}", highlight=False, soft_wrap=True)


def _console() -> Console:
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=WIDE)


def _say(sentence: str, style: str, before: str = "") -> None:
    """One line on the standard error stream, coloured on a terminal."""
    from rich.console import Console
    from rich.text import Text

    words = Text.assemble((before, style), sentence) if before else Text(sentence, style)
    Console(stderr=True).print(words, soft_wrap=True, highlight=False)


def _usage(error: Any) -> str:
    """What is wrong with the command line and where to look, in one sentence."""
    command = error.ctx.command_path if getattr(error, "ctx", None) is not None else "neko"
    message = " ".join(str(error.format_message()).split()).rstrip(".?").replace(". Did you mean", "; did you mean")
    return f"{message[:1].lower()}{message[1:]}; see '{command} --help'."


if __name__ == "__main__":
    sys.exit(main())
