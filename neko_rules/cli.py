"""The command line, ``neko``: ``run``, ``list``, ``explain``, ``show``, ``compare``, ``verify``, ``bench`` and more.

Whatever a user can get wrong is answered by one sentence on the standard error stream and exit code 2; Ctrl-C ends with
130. NumPy and all that is heavy is imported inside the commands, so that help is immediate and the number of threads
can still be set.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from neko_rules import __version__
from neko_rules.errors import ArgumentError, NekoError, NekoWarning
from neko_rules.experiments.listing import KINDS

if TYPE_CHECKING:
    from rich.console import Console

    from neko_rules.experiments.run import Outcome
    from neko_rules.experiments.sampling import Drawn

DIFFERENT, WRONG, INTERRUPTED = 1, 2, 130
"""Exit codes: backends do not agree; something in the command, a file or the numbers was wrong; ended by Ctrl-C (128 +
SIGINT)."""

SEVERAL = ("--rules", "--backends", "--trajectories")
"""Options that take all the words up to the next option: ``--rules bptt ottt`` stands for ``--rules bptt --rules
ottt``."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

WIDE = 120
"""Columns for output that goes to a file or a pipe, which a person reads on a screen in the end."""

UsageError: Any = typer.BadParameter.__base__
"""What the parser of the command line raises; typer brings its own or that of click, depending on its version."""

Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one value of the file, such as rule.mode=random; may be given repeatedly.",
        show_default=False,
    ),
]
"""Changes of a configuration."""

Seed = Annotated[
    int | None,
    typer.Option(min=0, help="Seed of weights, feedback and order of examples.", show_default="the file's"),
]
"""The seed in place of a configuration's."""

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
    setting: Setting = None,
    seed: Seed = None,
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
        from neko_rules.experiments import showing

        showing.show_outcome(outcome, _console())
    if outcome.status == "interrupted":
        _say(f"Interrupted; go on with: neko run --resume {outcome.folder.path}", "yellow")
        raise typer.Exit(INTERRUPTED)


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help=f"One of {', '.join(KINDS)}.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show every part that can be named in a configuration, with a line on what it is."""
    if kind == "rules":
        from neko_rules.experiments.explaining import rules_shown

        shown = rules_shown()
    else:
        from neko_rules.experiments.listing import shown_listing

        shown = [shown_listing(kind)]
    _console().print(*shown, sep="\n")


EXPLAIN_EXAMPLES = """[bold]Examples[/bold]

neko explain eprop

neko explain alif

neko explain alif --kind models"""


@app.command(epilog=EXPLAIN_EXAMPLES)
def explain(
    name: Annotated[str, typer.Argument(help="A rule, neuron, loss, optimizer … such as eprop.")],
    kind: Annotated[
        str | None, typer.Option(help="Of which kind, if several have the name: models, …", show_default=False)
    ] = None,
) -> None:
    """Explain a part that can be named: its equations, limits, cost and paper."""
    from neko_rules.experiments.explaining import explanation, shown_explanation

    console = _console()
    console.print(*shown_explanation(explanation(name, kind), console.width), sep="\n")


@app.command()
def show(folder: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/mnist-20260131-120005.")]) -> None:
    """Show what a run or a comparison was, its curves or tables, and its last figures."""
    from neko_rules.experiments import showing

    showing.show(folder, _console())


COMPARE_EXAMPLES = """[bold]Examples[/bold]

neko compare configs/mnist_gradients.yaml --rules bptt eprop:symmetric eprop:random eprop:adaptive ottt

neko compare configs/mnist1d_eprop.yaml --rules eprop bptt ottt@torch --reference bptt --set train.epochs=1

neko compare my.yaml --rules bptt truncated_bptt:window=7 eprop:mode=random,online=true"""


@app.command(epilog=COMPARE_EXAMPLES)
def compare(
    config: Annotated[Path, typer.Argument(help="YAML file; its rule gives the optimiser to all.")],
    rules: Annotated[
        list[str],
        typer.Option(
            "--rules",
            metavar="RULE …",
            help="Rules, the first of which trains: NAME, NAME:MODE, NAME:KEY=VALUE,…, each with @BACKEND if wanted.",
            show_default=False,
        ),
    ],
    setting: Setting = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write, new or empty.", show_default="runs/NAME-compare-TIME")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Rule that all are compared with.", show_default="the first")
    ] = None,
    keep_every: Annotated[
        int, typer.Option(min=1, help="Batches from one whose gradients are kept in full to the next.")
    ] = 100,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no table.")] = False,
) -> None:
    """Train by one rule and compare gradients and weight changes of others with it, batch by batch."""
    from neko_rules.experiments import compare as comparing
    from neko_rules.experiments import showing

    outcome, result = comparing.compare(
        config, rules, setting or [], seed, out, reference, keep_every, progress=not quiet
    )
    if not quiet:
        console = _console()
        console.print()
        showing.show_tables(result, console)
        showing.show_comparison_figure(outcome.folder, console)
        showing.show_paths(console, folder=outcome.folder.path)
    if outcome.status == "interrupted":
        raise typer.Exit(INTERRUPTED)


COSTS_EXAMPLES = """[bold]Examples[/bold]

neko costs configs/mnist_eprop.yaml

neko costs configs/mnist_eprop.yaml --set model.readout=sequence --rules bptt eprop eprop:online=true ottt:online=true

neko costs my.yaml --rules bptt eprop --set model.hidden=32 --examples 1"""


@app.command(epilog=COSTS_EXAMPLES)
def costs(
    config: Annotated[Path, typer.Argument(help="YAML file; its rule gives the optimiser to all.")],
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rules",
            metavar="RULE …",
            help="Rules: NAME, NAME:MODE, NAME:KEY=VALUE,….",
            show_default="the file's",
        ),
    ] = None,
    setting: Setting = None,
    seed: Seed = None,
    examples: Annotated[int, typer.Option(min=1, help="Examples of the step that is counted.")] = 8,
) -> None:
    """Count what rules ask of a machine: operations, but those of zeros and spikes, memory, weights written, energy."""
    from neko_rules.experiments.costing import costing
    from neko_rules.report.costs_table import caption, costs_table

    found = costing(config, rules or [], setting or [], seed, examples)
    console = _console()
    console.print(costs_table(found))
    console.print()
    console.print(*caption(found), sep="\n", highlight=False)


VERIFY_EXAMPLES = """[bold]Examples[/bold]

neko verify configs/mnist1d_eprop.yaml --backends numpy torch tensorflow jax

neko verify my.yaml --backends numpy jax --steps 10 --examples 16 --set rule.mode=random

Exit code 0 if all agree in float64 (a spike flip is no disagreement, and is told), 1 if two part."""


@app.command(epilog=VERIFY_EXAMPLES)
def verify(
    config: Annotated[Path, typer.Argument(help="YAML file.")],
    backends: Annotated[
        list[str] | None,
        typer.Option(
            "--backends",
            metavar="BACKEND …",
            help="Backends, the first of which is the reference.",
            show_default="all that are installed",
        ),
    ] = None,
    setting: Setting = None,
    seed: Seed = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 3,
    examples: Annotated[
        int | None, typer.Option(min=1, help="Examples per step.", show_default="the file's batch size")
    ] = None,
    time_steps: Annotated[
        int | None, typer.Option(min=1, help="Only the last so many time steps.", show_default="all")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Largest relative difference in float64.")] = 1e-9,
    float32: Annotated[bool, typer.Option("--float32/--float64-only", help="Report float32 beside.")] = True,
    into: Annotated[
        Path | None, typer.Option(help="Folder of a run whose report is to show the result.", show_default=False)
    ] = None,
) -> None:
    """Check that a run has the same numbers on several backends, or show where they part."""
    from neko_rules.experiments import verify as verifying
    from neko_rules.testing.failures import installed

    names = installed(backends or None)
    found = verifying.verify(
        config,
        names,
        setting or [],
        seed,
        steps=steps,
        examples=examples,
        time_steps=time_steps,
        tolerance=tolerance,
        float32=float32,
    )
    console = _console()
    console.print(found.table())
    if into is not None:
        from neko_rules.experiments.folder import RunFolder
        from neko_rules.experiments.report import VERIFICATION

        RunFolder.existing(into).write_json(VERIFICATION, found.summary())
    if not found.agree:
        raise typer.Exit(DIFFERENT)


LANDSCAPE_EXAMPLES = """[bold]Examples[/bold]

neko landscape runs/first                                         # random directions around its last weights

neko landscape runs/bptt --trajectories runs/bptt runs/eprop      # the plane of their trajectories"""


@app.command(epilog=LANDSCAPE_EXAMPLES)
def landscape(
    folder: Annotated[Path, typer.Argument(help="Folder of the run whose weights are in the middle.")],
    trajectories: Annotated[
        list[Path] | None,
        typer.Option(
            "--trajectories", metavar="FOLDER …", help="Runs whose ways are drawn on their plane.", show_default=False
        ),
    ] = None,
    points: Annotated[int, typer.Option(min=3, help="Points along each side.")] = 21,
    span: Annotated[float, typer.Option(help="Reach of a random plane, in lengths of the weights.")] = 1.0,
    examples: Annotated[int, typer.Option(min=1, help="Test examples on which the loss is taken.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random directions.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File to draw.", show_default="FOLDER/landscape.png")] = None,
) -> None:
    """Draw the loss on a plane through parameter space, and the ways of trainings across it."""
    from neko_rules.experiments import landscape as landscapes
    from neko_rules.report.tables import shown_path

    found = landscapes.landscape(
        folder, trajectories or [], points=points, span=span, examples=examples, seed=seed, out=out
    )
    console = _console()
    for name, share in found.outside.items():
        console.print(
            f"{name}: {share:.0%} of the distance (root mean square) sticks out of the plane", highlight=False
        )
    console.print(f"figure  {shown_path(found.figure)}", highlight=False, soft_wrap=True)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run or a comparison.")],
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="FOLDER/report.html")] = None,
    activity: Annotated[
        bool, typer.Option("--activity/--no-activity", help="Run the trained network on a test example.")
    ] = True,
) -> None:
    """Write everything about a run into one HTML file that needs no other."""
    from neko_rules.experiments.report import write_report
    from neko_rules.report.tables import shown_path

    written = write_report(folder, out, activity)
    _console().print(f"report  {shown_path(written)}", highlight=False, soft_wrap=True)


EXPORT_EXAMPLES = """[bold]Examples[/bold]

neko export runs/first model.nir

neko export runs/first model.nir --approximate        # what NIR cannot say is left out, and listed

neko export runs/first model.nir --scheme euler --gain weights        # for Norse"""


@app.command(epilog=EXPORT_EXAMPLES)
def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a run that has ended.")],
    out: Annotated[Path, typer.Argument(help="File to write, such as model.nir.")],
    approximate: Annotated[
        bool, typer.Option("--approximate/--exact", help="Leave out what NIR cannot say, in place of refusing it.")
    ] = False,
    scheme: Annotated[
        str, typer.Option(help="How the reader takes a time step: exponential, or euler as Norse and snnTorch do.")
    ] = "exponential",
    gain: Annotated[
        str, typer.Option(help="Where the factors 1/(1 - α) are: neurons (R and w_in), or weights.")
    ] = "neurons",
) -> None:
    """Write the network that a run ended with as a file of NIR, which simulators and chips read."""
    from neko_rules.experiments import export as exporting
    from neko_rules.report.tables import shown_path

    exporting.export(folder, out, approximate=approximate, scheme=scheme, gain=gain)
    _console().print(f"network  {shown_path(out)}", highlight=False, soft_wrap=True)


BENCH_EXAMPLES = """[bold]Examples[/bold]

neko bench

neko bench --backends numpy torch --threads 2 --seconds 30"""


@app.command(epilog=BENCH_EXAMPLES)
def bench(
    backends: Annotated[
        list[str] | None,
        typer.Option("--backends", metavar="BACKEND …", help="Backends.", show_default="all that are installed"),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each.")] = 1,
    seconds: Annotated[float, typer.Option(min=1, help="Time to take in all; what is not ready is left out.")] = 45,
) -> None:
    """Time training steps by BPTT and e-prop on this machine, on every backend."""
    from neko_rules.experiments.quick_benchmark import quick_benchmark, table

    found = quick_benchmark(backends, threads=threads, seconds=seconds)
    console = _console()
    for part in table(found, threads):
        console.print(part)
    if not any(result.seconds for result in found):
        raise typer.Exit(WRONG)


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
        given = _spelled_out(sys.argv[1:] if arguments is None else arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            code = app(given, standalone_mode=False, prog_name="neko")
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


def _run(
    config: Path | None, settings: list[str], seed: int | None, out: Path | None, resume: Path | None, progress: bool
) -> Outcome | Drawn:
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


def _spelled_out(arguments: Sequence[str]) -> list[str]:
    """The option of ``SEVERAL`` before each of its words, as the parser wants it.

    Example:
        >>> _spelled_out(["compare", "my.yaml", "--rules", "bptt", "ottt", "--seed", "3"])
        ['compare', 'my.yaml', '--rules', 'bptt', '--rules', 'ottt', '--seed', '3']
    """
    given: list[str] = []
    option, words = "", 0
    for word in arguments:
        if word.startswith("-"):
            option, words = (word if word in SEVERAL else ""), 0
        elif option:
            words += 1
            if words > 1:
                given.append(option)
        given.append(word)
    return given


def _limit_threads(threads: int) -> None:
    for name in THREADS:
        os.environ[name] = str(threads)


def _console() -> Console:
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=WIDE)


def _say(sentence: str, style: str, before: str = "") -> None:
    """One line on the standard error stream, coloured on a terminal."""
    from rich.console import Console
    from rich.text import Text

    words = Text.assemble((before, style), sentence) if before else Text(sentence, style)
    Console(stderr=True).print(words, soft_wrap=True, highlight=False)


_shown_by_python = warnings.showwarning


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of this package in one line, without the place in the program, which says nothing to a user."""
    if issubclass(category, NekoWarning):
        _say(str(message), "yellow", "Warning: ")
    else:
        _shown_by_python(message, category, filename, lineno, file, line)


def _usage(error: Any) -> str:
    """What is wrong with the command line and where to look, in one sentence."""
    command = error.ctx.command_path if getattr(error, "ctx", None) is not None else "neko"
    message = " ".join(str(error.format_message()).split()).rstrip(".?").replace(". Did you mean", "; did you mean")
    return f"{message[:1].lower()}{message[1:]}; see '{command} --help'."


if __name__ == "__main__":
    sys.exit(main())
