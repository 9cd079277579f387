"""The progress of a sampling run: how many transitions its chains have made, and how long the rest will take."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from neko_rules.arguments import integer, number
from neko_rules.report.readable import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

_REDRAW = 0.1
"""Seconds between two pictures."""


class SamplingProgress:
    """A bar over the transitions of all chains; to be called with a chain and its transitions so far.

    On a terminal it is drawn anew several times a second and gone at the end; elsewhere there is a line for every chain
    that has ended.

    Args:
        warmup: transitions of every chain before its first kept draw.
        draws: kept draws of every chain.
        chains: how many there are.
        thin: transitions per kept draw.
        console: where to draw; by default the standard error stream.
        delay: seconds that must pass before anything is shown.

    Example:
        >>> import io
        >>> from rich.console import Console
        >>> stream = io.StringIO()
        >>> with SamplingProgress(warmup=5, draws=5, chains=2, console=Console(file=stream), delay=0.0) as told:
        ...     told(0, 5)
        ...     told(0, 10)
        >>> stream.getvalue().split(" after ")[0]
        'chain 1 of 2 has made its 10 transitions'
    """

    def __init__(
        self,
        warmup: int,
        draws: int,
        chains: int,
        thin: int = 1,
        console: Console | None = None,
        delay: float = 2.0,
    ) -> None:
        self.warmup, self.chains = integer("warmup", warmup, at_least=0), integer("chains", chains, at_least=1)
        self.transitions = warmup + integer("draws", draws, at_least=1) * integer("thin", thin, at_least=1)
        self.delay = number("delay", delay, at_least=0)
        self._console = console
        self._done = [0] * chains
        self._begin = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._drawn = -math.inf
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, chain: int, transitions: int) -> None:
        """Note that a chain has come so far, and show it if it is time to."""
        self._done[chain] = transitions
        now = time.monotonic()
        if self._first is None:
            # What a resumed run has behind it says nothing of the pace, and the first transition may have compiled.
            self._first = (now, sum(self._done))
        if now - self._begin < self.delay:
            return
        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=True)
        if self._console.is_terminal:
            if now - self._drawn >= _REDRAW:
                self._drawn = now
                self._draw(self._console, chain, now)
        elif transitions == self.transitions:
            said = f"chain {chain + 1} of {self.chains} has made its {transitions} transitions"
            self._console.print(f"{said} after {duration(now - self._begin)}", highlight=False)

    def _draw(self, console: Console, chain: int, now: float) -> None:
        from rich.live import Live
        from rich.progress_bar import ProgressBar as Bar
        from rich.table import Table as Grid
        from rich.text import Text

        assert self._first is not None, "set by the first call"
        done, total = sum(self._done), self.chains * self.transitions
        at = "warm-up" if self._done[chain] <= self.warmup else "drawing"
        words = f"{done}/{total}"
        if done > self._first[1]:
            pace = (now - self._first[0]) / (done - self._first[1])
            words += f" · {duration(pace * (total - done))} left"
        grid = Grid.grid(padding=(0, 2))
        grid.width = min(80, console.width)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        name = Text(f"chain {chain + 1} of {self.chains}, {at}", "bold")
        grid.add_row(name, Bar(total=total, completed=done), Text(words, "cyan"))
        if self._live is None:
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(grid, refresh=True)
