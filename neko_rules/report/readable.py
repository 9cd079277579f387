"""Numbers and times as one reads them."""

from __future__ import annotations


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
