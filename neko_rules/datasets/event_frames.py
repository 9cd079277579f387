"""Event frames: the events of a camera or a cochlea as inputs of a network, how many of each place in every time step.

Events are an array with the fields ``x``, ``y``, ``t`` in microseconds and ``p``, the polarity, as Tonic, and most
files of event cameras, have them; a cochlea's have no ``y``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neko_rules import arguments
from neko_rules.errors import ArgumentError, DataError, warn

MICROSECOND = 1e-6


def event_frames(
    events: np.ndarray,
    sensor_size: Sequence[int],
    dt: float,
    steps: int,
    *,
    begin: float = 0.0,
    binary: bool = False,
) -> np.ndarray:
    """Events as float32 [time, feature], features in the order [polarity, row, column] that a Convolution takes.

    Time steps are counted from ``begin`` and not from the first event, whose time may be what tells classes apart.

    Args:
        events: an array with the fields x, y (or none), t and p.
        sensor_size: columns, rows and polarities, (W, H, P); the rows of a cochlea are 1.
        dt: of a time step, in seconds.
        steps: how many there are.
        begin: of the first, in seconds.
        binary: whether several events of one place in one time step count as one.

    Raises:
        ArgumentError: an argument is out of range.
        DataError: the array lacks a field, or an event lies outside of the sensor.

    Warns:
        NekoWarning: some events lie before the first time step, or after the last.

    Example: two events of one pixel in the first millisecond, and one of another in the third.

        >>> fields = [("x", int), ("y", int), ("t", int), ("p", int)]
        >>> events = np.array([(0, 1, 100, 0), (0, 1, 900, 0), (1, 0, 2500, 1)], fields)
        >>> event_frames(events, (2, 2, 2), dt=1e-3, steps=3)
        array([[0., 0., 2., 0., 0., 0., 0., 0.],
               [0., 0., 0., 0., 0., 0., 0., 0.],
               [0., 0., 0., 0., 0., 1., 0., 0.]], dtype=float32)
    """
    sizes = [arguments.integer("sensor_size", each, at_least=1) for each in sensor_size]
    if len(sizes) != 3:
        raise ArgumentError("sensor_size must be columns, rows and polarities, (W, H, P)", received=sensor_size)
    arguments.number("dt", dt, above=0)
    arguments.integer("steps", steps, at_least=1)
    arguments.number("begin", begin)
    arguments.flag("binary", binary)
    columns, rows, polarities = sizes
    x, y, p = (_places(events, *each) for each in (("x", columns), ("y", rows), ("p", polarities)))
    # A time that is a whole number of steps begins one, whatever its quotient is rounded to.
    step = np.floor((_field(events, "t") * MICROSECOND - begin) / dt + 1e-9).astype(np.int64)
    within = (step >= 0) & (step < steps)
    if not within.all():
        warn(
            f"events must lie within the {steps} time steps of {dt:g} s from {begin:g} s",
            received=f"{np.count_nonzero(~within)} of {len(events)} that do not",
            works="they are left out; more steps, or longer ones, would hold them",
        )
    flat = ((step * polarities + p) * rows + y) * columns + x
    counts = np.bincount(flat[within], minlength=steps * polarities * rows * columns)
    found = np.minimum(counts, 1) if binary else counts
    return found.reshape(steps, polarities * rows * columns).astype(np.float32)


def _field(events: np.ndarray, name: str) -> np.ndarray:
    names = getattr(events.dtype, "names", None) or ()
    if name not in names:
        raise DataError(f"events must be an array with a field {name!r}", received=f"fields {list(names)}")
    return np.asarray(events[name])


def _places(events: np.ndarray, name: str, size: int) -> np.ndarray:
    """A coordinate of every event, checked; 0 where there is but one place."""
    if name != "x" and size == 1 and name not in (events.dtype.names or ()):
        return np.zeros(len(events), np.int64)
    found = _field(events, name).astype(np.int64)
    if found.size and (found.min() < 0 or found.max() >= size):
        wrong = found.max() if found.max() >= size else found.min()
        raise DataError(f"{name!r} of an event must lie from 0 to {size - 1}", received=int(wrong))
    return found
