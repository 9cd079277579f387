"""Terminal plots: curves drawn in characters, with two by four dots in each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

BRAILLE = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of a braille character that stands for each of its dots, [row][column]."""


def curve_lines(
    curves: Mapping[str, Sequence[float]], first: int, width: int = 60, height: int = 10
) -> list[list[tuple[str, str]]]:
    """Curves over epochs as lines of text.

    Args:
        curves: name → value per epoch; NaN leaves a gap.
        first: number of the first epoch.
        width: characters for the curves.
        height: lines for the curves.

    Returns:
        Lines, each a list of (text, name of the curve that is drawn there or "").

    Example:
        >>> for line in curve_lines({"loss": [2.0, 1.0, 0.5, 0.25]}, first=1, width=12, height=3):
        ...     print("".join(text for text, _ in line).rstrip())
              2 ┤⠑⠤⡀
                │  ⠈⠢⢄⣀
           0.25 ┤      ⠑⠒⠤⠤⢄⣀
                └────────────
                 1          4
    """
    finite = [value for curve in curves.values() for value in curve if math.isfinite(value)]
    if not finite:
        return []
    low, high = min(finite), max(finite)
    grid = [[0] * width for _ in range(height)]
    owner = [[""] * width for _ in range(height)]
    for name, curve in curves.items():
        for column, row in _dots(curve, low, high, 2 * width, 4 * height):
            grid[row // 4][column // 2] |= DOTS[row % 4][column % 2]
            owner[row // 4][column // 2] = name
    labels = {0: f"{high:.4g}", height - 1: f"{low:.4g}"}
    lines = [
        [(f"{labels.get(row, ''):>15} {'┤' if row in labels else '│'}", ""), *_runs(grid[row], owner[row])]
        for row in range(height)
    ]
    last = first + max(len(curve) for curve in curves.values()) - 1
    begin, end = str(first), str(last) if last != first else ""
    lines.append([(" " * 16 + "└" + "─" * width, "")])
    lines.append([(" " * 17 + begin + end.rjust(width - len(begin)), "")])
    return lines


def _dots(curve: Sequence[float], low: float, high: float, width: int, height: int) -> list[tuple[int, int]]:
    """Column and row of every dot on the straight lines between the points of a curve."""
    span, last = (high - low) or 1.0, max(len(curve) - 1, 1)

    def place(i: int) -> tuple[float, float]:
        return i / last * (width - 1), (high - curve[i]) / span * (height - 1)

    dots = []
    for i in range(len(curve)):
        if not math.isfinite(curve[i]):
            continue
        x, y = place(i)
        joined = i + 1 < len(curve) and math.isfinite(curve[i + 1])
        to_x, to_y = place(i + 1) if joined else (x, y)
        steps = max(1, math.ceil(max(abs(to_x - x), abs(to_y - y))))
        dots += [(round(x + (to_x - x) * k / steps), round(y + (to_y - y) * k / steps)) for k in range(steps + 1)]
    return dots


def _runs(cells: list[int], owners: list[str]) -> list[tuple[str, str]]:
    """Neighbouring characters of one curve joined into one piece of text."""
    runs: list[tuple[str, str]] = []
    for cell, owner in zip(cells, owners, strict=True):
        character = chr(BRAILLE + cell) if cell else " "
        if runs and runs[-1][1] == owner:
            runs[-1] = (runs[-1][0] + character, owner)
        else:
            runs.append((character, owner))
    return runs
