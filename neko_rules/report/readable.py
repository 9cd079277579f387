"""Numbers, times and texts as one reads them."""

from __future__ import annotations

import re
import textwrap

WRITTEN = 100
"""Columns from which on a line of a docstring, whose next one goes on with the sentence, was broken for its length."""


def figure(value: float | None) -> str:
    """A number in at most seven characters, with four digits where it has them.

    Example:
        >>> [figure(value) for value in (0.12345, 12.345, 1234.5, 1e-5, None)]
        ['0.1235', '12.35', '1234', '1.0e-05', '']
    """
    if value is None:
        return ""
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e5):
        return f"{value:.1e}"
    return f"{value:.4f}" if size < 10 else f"{value:.2f}" if size < 1000 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """A time as one reads it.

    Example:
        >>> [duration(seconds) for seconds in (0.25, 42.0, 75.0, 3723.0)]
        ['0.2 s', '42 s', '1:15', '1:02:03']
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"


def filled(text: str, width: int) -> str:
    """A docstring in so many columns: paragraphs are broken anew, examples and what is short enough stay as they are.

    Args:
        text: without common indentation.
        width: columns.

    Example:
        >>> print(filled("Args:\\n    rate: how large a step is, in units of the gradient.", 32))
        Args:
            rate: how large a step is,
                in units of the
                gradient.
    """
    if max(map(len, text.splitlines()), default=0) <= width:
        return text
    paragraphs: list[list[str]] = []
    last = ""
    for line in text.splitlines():
        # Of an argument's description the lines after the first are indented further.
        deeper = _indent(line) - _indent(last)
        if len(last) >= WRITTEN and line.strip() and deeper in (0, 4) and not _is_code(line) and not _is_code(last):
            paragraphs[-1].append(line)
        else:
            paragraphs.append([line])
        last = line
    return "\n".join(_broken(lines, width) for lines in paragraphs)


def _broken(lines: list[str], width: int) -> str:
    first, *others = lines
    if not others and (len(first) <= width or _is_code(first)):
        return first
    indent = _indent(first)
    hanging = _indent(others[0]) if others else indent + (4 if re.match(r"\s+[\w, ]+: ", first) else 0)
    joined = " ".join(line.strip() for line in lines)
    return textwrap.fill(
        joined,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_code(line: str) -> bool:
    return line.lstrip().startswith((">>>", "..."))
