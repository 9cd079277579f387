"""Split tables: tables for the terminal that come in parts where they are too wide, so that no figure is ever cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

GAP, INDENT = 2, 2


class SplitTable(Table):
    """A table without lines whose columns of figures go below each other, in parts, where the width is not enough.

    A table that fits is a table like any other. In one that does not, headings break between words; the columns of
    figures go into as few parts as will do, each with the names of its rows before it; and a first column that groups
    the rows becomes headings between them.

    Args:
        names: how many columns, from the left, name a row; two at most.
        grouped: whether the first of two names is the same for several rows, in all but the first of which it is left
            out.
        title: of the whole.

    Example:
        >>> table = SplitTable(names=1, title="Two rules")
        >>> for heading in ("rule", "cosine", "relative error"):
        ...     table.add_column(heading, justify="right" if heading != "rule" else "left")
        >>> table.add_row("eprop", "0.912", "0.250")
        >>> Console(width=18).print(table)
        Two rules
        rule   cosine
        eprop   0.912
        <BLANKLINE>
               relative
        rule      error
        eprop     0.250
    """

    def __init__(self, *, names: int, grouped: bool = False, title: str | None = None) -> None:
        super().__init__(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        self.names, self.grouped = names, grouped

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table as it is, or in parts."""
        widths = [max(map(cell_len, [_plain(column.header), *_cells(column)])) for column in self.columns]
        if sum(widths) + GAP * (len(widths) - 1) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield Text(_plain(self.title), self.title_style or "table.title")
        for place, chosen in enumerate(self._parts(options.max_width)):
            if place:
                yield Text()
            yield self._part(chosen)

    def _parts(self, width: int) -> Iterator[list[Column]]:
        """The columns of figures of every part: as many as there is room for, and one in any case."""
        chosen: list[Column] = []
        before = used = sum(width + GAP for _, width in self._named()) - GAP
        for column in self.columns[self.names :]:
            wanted = GAP + _narrowest(column)
            if chosen and used + wanted > width:
                yield chosen
                chosen, used = [], before
            chosen.append(column)
            used += wanted
        yield chosen

    def _named(self) -> list[tuple[str, int]]:
        """Heading and width of the columns that name the rows of a part."""
        if not self.grouped:
            return [(_plain(column.header), _narrowest(column)) for column in self.columns[: self.names]]
        heading = ", ".join(_plain(column.header) for column in self.columns[:2])
        # The name of a group may be long: it takes several lines sooner than room from the figures.
        return [(heading, max(cell_len(heading), INDENT + _narrowest(self.columns[1])))]

    def _part(self, chosen: list[Column]) -> Table:
        part = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        for place, (heading, width) in enumerate(self._named()):
            part.add_column(heading, style=self.columns[place].style, overflow="fold", max_width=width)
        for column in chosen:
            part.add_column(column.header, style=column.style, justify=column.justify, width=_narrowest(column))
        for row in zip(*(column.cells for column in [*self.columns[: self.names], *chosen]), strict=True):
            if not self.grouped:
                part.add_row(*row)
                continue
            group, name, *figures = row
            if _plain(group):
                part.add_row(Text(_plain(group), "bold"))
            part.add_row(" " * INDENT + _plain(name), *figures)
        return part


def _plain(value: Any) -> str:
    return value.plain if isinstance(value, Text) else str(value)


def _cells(column: Column) -> list[str]:
    return [_plain(cell) for cell in column.cells]


def _narrowest(column: Column) -> int:
    """The width in which no cell and no word of the heading has to be broken."""
    return max(map(cell_len, [*_plain(column.header).split(), *_cells(column), ""]))
