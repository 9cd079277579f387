"""The progress bar: a line per epoch that stays, and beneath them the epoch in progress with the time left."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neko_rules.arguments import number
from neko_rules.kernels.ahead import unwatch, watch
from neko_rules.report.readable import duration, figure
from neko_rules.trainers.callbacks import Callback
from neko_rules.trainers.history import History, Record

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

    from neko_rules.trainers.trainer import Trainer

_VALIDATION = "validation_"
_REDRAW = 0.1
"""Seconds between two pictures of the epoch in progress."""


class ProgressBar(Callback):
    """Shows the loss and the metrics of every epoch and how long the run will still take.

    On a terminal the epoch in progress is drawn anew several times a second, and before it how many of the kernels of a
    form of network are compiled that is new on the machine; elsewhere there is one plain line per epoch.

    Args:
        console: the ``rich.console.Console`` to draw on; by default one on the standard error stream.
        delay: seconds that a run must take before anything is shown; what was to be shown until then follows.

    Example:
        >>> from rich.console import Console
        >>> bar = ProgressBar(Console(stderr=True), delay=2.0)
    """

    def __init__(self, console: Console | None = None, delay: float = 0.0) -> None:
        self.delay = number("delay", delay, at_least=0)
        self._given = console
        self._console: Console | None = None
        self._live: Live | None = None
        self._waiting: list[Text] = []
        self._header: Table | None = None
        self._begin = 0.0
        self._first: tuple[float, int] | None = None
        self._drawn = -math.inf

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._console, self._header, self._first = None, None, None
        self._waiting, self._drawn = [], -math.inf
        self._begin = time.perf_counter()
        watch(self._compiling)
        if trainer.resumed_from is not None:
            place = f"epoch {trainer.epoch}, step {trainer.step}{_out_of(trainer, ' of ')}"
            self._print(self._text(f"resumed from {trainer.resumed_from}: {place}", "dim"))

    def on_step_end(self, trainer: Trainer, step_metrics: dict[str, float]) -> None:
        """Draw the epoch in progress, unless that has just been done."""
        now = time.perf_counter()
        if self._first is None:
            self._first = (now, trainer.total_steps)
        self._show_if_due()
        last = trainer.step == trainer.steps_per_epoch
        if self._console is not None and self._console.is_terminal and (last or now - self._drawn >= _REDRAW):
            self._drawn = now
            self._draw(trainer)

    def on_epoch_end(self, trainer: Trainer, epoch_record: Record) -> None:
        """Leave a line on the screen."""
        self._give_back()
        self._show_if_due()
        table = self._table(epoch_record, trainer)
        self._print_header(table)
        self._print(self._row(table, epoch_record))

    def on_train_end(self, trainer: Trainer, history: History) -> None:
        """Say where and why a run ended early."""
        why = "interrupted" if history.interrupted else f"stopped: {history.stopped}" if history.stopped else ""
        if not why:
            return
        where = f"after epoch {len(history)} of {trainer.epochs}"
        if history.partial is not None:
            self._show_if_due()
            table = self._table(history.partial, trainer)
            self._print_header(table)
            self._print(self._row(table, history.partial, style="dim"))
            steps = f"{trainer.step}{_out_of(trainer, ' of ')} steps"
            where = f"in epoch {trainer.epoch} of {trainer.epochs}, after {steps}"
        self._print(self._text(f"{why} ({where})", "yellow"))

    def close(self) -> None:
        """Give the terminal back."""
        unwatch(self._compiling)
        self._give_back()

    def _compiling(self, done: int, of: int) -> None:
        """Say why a step takes seconds: kernels of a form of network are compiled once, and kept on disk."""
        self._show_if_due()
        if done == of:
            self._give_back()
        elif self._console is not None and self._console.is_terminal:
            words = f"compiling for this form of network, once: {done}/{of}"
            self._show(self._beside_bar(words, done, of, min(88, self._console.width)))

    def _give_back(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show_if_due(self) -> None:
        if self._console is None and time.perf_counter() - self._begin >= self.delay:
            from rich.console import Console

            self._console = Console(stderr=True) if self._given is None else self._given
            waiting, self._waiting = self._waiting, []
            for line in waiting:
                self._print(line)

    def _print(self, line: Text) -> None:
        if self._console is None:
            self._waiting.append(line)
        else:
            self._console.print(line, soft_wrap=True, highlight=False)

    def _print_header(self, table: Table) -> None:
        if table != self._header:
            self._header = table
            for line in table.header():
                self._print(self._text(line, "dim"))

    def _draw(self, trainer: Trainer) -> None:
        from rich.console import Group

        assert self._console is not None, "only what is shown is drawn"
        record = {"epoch": trainer.epoch, **trainer.metrics}
        table = self._table(record, trainer)
        self._print_header(table)
        self._show(Group(self._row(table, record), self._bar(trainer, min(table.width, self._console.width))))

    def _show(self, picture: RenderableType) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(picture, refresh=True)

    def _bar(self, trainer: Trainer, width: int) -> RenderableType:
        validating = trainer.step == trainer.steps_per_epoch and trainer.validates
        left = remaining_seconds(self._first, time.perf_counter(), trainer)
        words = "validating" if validating else f"{trainer.step}{_out_of(trainer, '/')}"
        if left is not None:
            words += f" · {duration(left)} left"
        return self._beside_bar(words, trainer.step, trainer.steps_per_epoch, width)

    def _beside_bar(self, words: str, done: int, of: int | None, width: int) -> RenderableType:
        from rich.progress_bar import ProgressBar as Bar
        from rich.table import Table as Grid

        grid = Grid.grid(padding=(0, 2))
        grid.width = width
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_row(Bar(total=of, completed=done), self._text(words, "cyan"))
        return grid

    def _table(self, record: Record, trainer: Trainer) -> Table:
        skipped = ("epoch", "steps", "seconds")
        training = [name for name in record if name not in skipped and not name.startswith(_VALIDATION)]
        validation = [name.removeprefix(_VALIDATION) for name in record if name.startswith(_VALIDATION)]
        if trainer.validates and not validation:
            validation = training
        table = Table(tuple(training), tuple(validation), trainer.epochs)
        if self._console is not None and self._console.is_terminal and table.width > self._console.width:
            # What the validation shows as well is what a narrow terminal can best do without.
            kept = tuple(name for name in training if name == "loss" or name not in validation)
            return Table(kept, tuple(validation), trainer.epochs)
        return table

    def _row(self, table: Table, record: Record, style: str = "") -> Text:
        epoch, training, validation, seconds = table.row(record)
        row = self._text(epoch, "bold")
        row.append(training)
        row.append(validation, "green")
        row.append(seconds, "dim")
        if style:
            row.stylize(style)
        return row

    @staticmethod
    def _text(words: str, style: str) -> Text:
        from rich.text import Text

        return Text(words, style)


@dataclass(frozen=True)
class Table:
    """Lines of equal columns: the epoch, the means over training, those over the validation data, and the time.

    Args:
        training: names of the quantities of training.
        validation: names of those of the validation.
        epochs: the number of the last epoch, which the first column must have room for.

    Example:
        >>> table = Table(("loss", "accuracy"), ("loss",), epochs=30)
        >>> record = {"epoch": 1, "loss": 2.3, "accuracy": 0.125, "validation_loss": 2.1, "seconds": 75.0}
        >>> print("\\n".join([*table.header(), "".join(table.row(record))]))
                training             validation
        epoch     loss  accuracy         loss     time
         1/30   2.3000    0.1250       2.1000     1:15
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    epochs: int

    def header(self) -> list[str]:
        """The names above the columns."""
        names = "epoch".rjust(self._epoch_width)
        training = "".join(_label(name).rjust(_width(name)) for name in self.training)
        validation = "".join(_label(name).rjust(_width(name)) for name in self.validation)
        line = names + training + self._gap + validation + "time".rjust(9)
        if not self.validation:
            return [line]
        above = " " * self._epoch_width + "   training".ljust(len(training)) + self._gap + "   validation"
        return [above, line]

    def row(self, record: dict[str, Any]) -> tuple[str, str, str, str]:
        """The four groups of a line; what the record does not have is left empty."""
        epoch = f"{record['epoch']}/{self.epochs}".rjust(self._epoch_width)
        training = "".join(figure(record.get(name)).rjust(_width(name)) for name in self.training)
        validation = "".join(figure(record.get(_VALIDATION + name)).rjust(_width(name)) for name in self.validation)
        seconds = duration(record["seconds"]) if "seconds" in record else ""
        return epoch, training, self._gap + validation, seconds.rjust(9)

    @property
    def width(self) -> int:
        """Characters per line."""
        return len(self.header()[-1])

    @property
    def _epoch_width(self) -> int:
        return max(len("epoch"), 2 * len(str(self.epochs)) + 1)

    @property
    def _gap(self) -> str:
        return "  " if self.validation else ""


def remaining_seconds(first: tuple[float, int] | None, now: float, trainer: Trainer) -> float | None:
    """The time that the steps left will take at the mean pace since the first one, which may have compiled code.

    None where the pace, or the number of steps, is not known yet.
    """
    if first is None or trainer.total_steps <= first[1] or trainer.steps_per_epoch is None:
        return None
    pace = (now - first[0]) / (trainer.total_steps - first[1])
    return pace * (trainer.epochs * trainer.steps_per_epoch - trainer.total_steps)


def _out_of(trainer: Trainer, words: str) -> str:
    """How many steps an epoch has, after words; nothing as long as that is not known."""
    return "" if trainer.steps_per_epoch is None else f"{words}{trainer.steps_per_epoch}"


def _label(name: str) -> str:
    return name.replace("_", " ")


def _width(name: str) -> int:
    """Room for the name or a figure, and two blanks before it."""
    return 2 + max(len(name), 7)
