"""Event frames: every event is counted once, in its time step and at its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neko_rules import BPTT, Convolution, Evaluator, Layer, Stack
from neko_rules.datasets import event_frames
from neko_rules.errors import ArgumentError, DataError, NekoWarning

FIELDS = [("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)]
SIZE = (7, 5, 2)


def events(many: int = 400, seed: int = 0, last: int = 20_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = np.zeros(many, FIELDS)
    for name, end in (("x", 7), ("y", 5), ("p", 2), ("t", last)):
        found[name] = rng.integers(0, end, many)
    return found


def test_every_event_is_counted_once_where_and_when_it_was() -> None:
    given = events()
    found = event_frames(given, SIZE, dt=1e-3, steps=20)
    expected = np.zeros((20, 2, 5, 7))
    for each in given:
        expected[each["t"] // 1000, int(each["p"]), each["y"], each["x"]] += 1
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.reshape(20, -1))
    assert found.sum() == 400
    assert np.array_equal(event_frames(given, SIZE, dt=1e-3, steps=20, binary=True), found > 0)


@pytest.mark.parametrize("dt", [1e-4, 3e-4, 7e-4, 1e-3])
def test_an_event_at_the_beginning_of_a_step_belongs_to_it(dt: float) -> None:
    """Also where the quotient of two decimal fractions is rounded down."""
    given = np.zeros(200, FIELDS)
    given["t"] = np.rint(np.arange(200) * dt * 1e6)
    assert np.array_equal(event_frames(given, (1, 1, 2), dt=dt, steps=200)[:, 0], np.ones(200))


def test_the_time_of_the_first_event_is_kept() -> None:
    given = np.zeros(1, FIELDS)
    given["t"] = 5_300
    assert event_frames(given, SIZE, dt=1e-3, steps=8).sum(axis=1).tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    assert event_frames(given, SIZE, dt=1e-3, steps=8, begin=4e-3).sum(axis=1).tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


def test_events_that_are_left_out_are_told() -> None:
    with pytest.warns(NekoWarning, match="of 400 that do not"):
        found = event_frames(events(), SIZE, dt=1e-3, steps=10)
    assert found.sum() == np.count_nonzero(events()["t"] < 10_000)


def test_a_cochlea_has_no_rows() -> None:
    given = np.zeros(3, [("x", int), ("t", int), ("p", int)])
    given["x"] = [0, 4, 4]
    assert event_frames(given, (5, 1, 1), dt=1e-3, steps=1).tolist() == [[1, 0, 0, 0, 2]]


def test_no_events_are_no_spikes() -> None:
    assert not event_frames(events(0), SIZE, dt=1e-3, steps=4).any()


def test_they_are_what_a_convolution_takes() -> None:
    """A neuron whose window holds the pixel of an event is reached by it, and no other."""
    first = Convolution((5, 7), filters=1, window=3, channels=2)
    given = np.zeros(1, FIELDS)
    given["x"], given["y"], given["p"] = 6, 0, True
    frame = event_frames(given, SIZE, dt=1e-3, steps=1)
    reached = (frame @ (first.numbers() >= 0)).reshape(first.places)
    assert np.argwhere(reached).tolist() == [[0, 4]]
    x = np.stack([event_frames(events(seed=seed), SIZE, dt=1e-3, steps=20) for seed in range(4)])
    network = Stack([Layer("lif", connectivity=first, recurrent=False)], 2, inputs=70)
    assert np.isfinite(BPTT(Evaluator(network)).step(x, [0, 1, 0, 1])["loss"])


def without(name: str) -> np.ndarray:
    return np.zeros(2, [field for field in FIELDS if field[0] != name])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sensor_size": (7, 5)}, ArgumentError, "W, H, P"),
        ({"sensor_size": (7, 5, 1)}, DataError, "'p' of an event must lie from 0 to 0"),
        ({"sensor_size": (6, 5, 2)}, DataError, "'x' of an event must lie from 0 to 5"),
        ({"dt": 0.0}, ArgumentError, "dt"),
        ({"steps": 0}, ArgumentError, "steps"),
        ({"events": np.zeros((3, 4))}, DataError, "a field 'x'"),
        ({"events": without("t")}, DataError, "a field 't'"),
        ({"events": without("y")}, DataError, "a field 'y'"),
    ],
)
def test_what_are_no_events_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    options = {"events": events(), "sensor_size": SIZE, "dt": 1e-3, "steps": 20, **change}
    with pytest.raises(error, match=message):
        event_frames(options.pop("events"), options.pop("sensor_size"), **options)
