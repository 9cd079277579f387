"""Recorders: what they keep is what the network did, at the updates and of the neurons asked for, in bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neko_rules import (
    ALIF,
    BPTT,
    Checkpoint,
    EProp,
    Evaluator,
    GradientComparison,
    GradientRecorder,
    SpikeRecorder,
    StateRecorder,
    Trainer,
    WeightRecorder,
)
from neko_rules.errors import ArgumentError
from neko_rules.recorded import Recorded, chosen
from neko_rules.trainers import Callback


def data(examples: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return 4 * rng.standard_normal((examples, 7, 5)), rng.integers(0, 2, examples)


def model() -> Evaluator:
    return Evaluator(ALIF(6, 2, dtype="float64", seed=1))


class Witness(Callback):
    """What is true before each update."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_step_begin(self, trainer: Trainer, x: np.ndarray, y: np.ndarray) -> None:
        rule: Any = trainer.rule
        trajectory = rule.model.trajectory(x)
        self.seen.append(
            {
                "weights": rule.model.network.parameters,
                "gradients": rule.gradients(x, y),
                "v": trajectory.records["hidden"].states["v"],
                "z": trajectory.z("hidden"),
            }
        )


def trained(*recorders: Any, epochs: int = 3) -> tuple[Any, list[dict[str, Any]]]:
    witness = Witness()
    history = Trainer(EProp(model()), callbacks=[witness, *recorders]).train(*data(), epochs=epochs, batch_size=4)
    return history.recorded, witness.seen


def test_each_keeps_what_was_true_before_the_update() -> None:
    recorded, seen = trained(
        SpikeRecorder("hidden", neurons=[0, 3], examples=slice(1, 3), times=slice(2, None)),
        StateRecorder("hidden", "v", neurons=slice(0, 4, 2), examples=-1, every=2),
        WeightRecorder("hidden.recurrent.weight", sources=[1], targets=slice(2, 5), steps=[2, 5]),
        GradientRecorder("hidden.input.weight", key="g", every=3),
    )
    assert list(recorded) == ["hidden.spikes", "hidden.v", "hidden.recurrent.weight", "g"]
    spikes = recorded["hidden.spikes"]
    assert spikes.places == [1, 2, 3, 4, 5, 6]
    assert spikes.array.shape == (6, 2, 5, 2)
    assert spikes.array.dtype == bool
    assert spikes.array.any()
    for place, value in zip(spikes.places, spikes.values, strict=True):
        np.testing.assert_array_equal(value, seen[place - 1]["z"][2:, 1:3][:, :, [0, 3]].transpose(1, 0, 2) > 0)
    states = recorded["hidden.v"]
    assert states.places == [1, 3, 5]
    for place, value in zip(states.places, states.values, strict=True):
        np.testing.assert_array_equal(value[0], seen[place - 1]["v"][:, -1, [0, 2]])
    weights = recorded["hidden.recurrent.weight"]
    assert weights.places == [2, 5]
    for place, value in zip(weights.places, weights.values, strict=True):
        np.testing.assert_array_equal(value, seen[place - 1]["weights"]["hidden.recurrent.weight"][[1], 2:5])
    gradients = recorded["g"]
    assert gradients.places == [1, 4]
    for place, value in zip(gradients.places, gradients.values, strict=True):
        np.testing.assert_array_equal(value, seen[place - 1]["gradients"]["hidden.input.weight"])


def test_recording_changes_nothing() -> None:
    with_recorder, without = EProp(model()), EProp(model())
    one = Trainer(with_recorder, callbacks=[SpikeRecorder("hidden")]).train(*data(), epochs=2, batch_size=4)
    other = Trainer(without).train(*data(), epochs=2, batch_size=4)
    assert one["loss"] == other["loss"]


def test_a_run_with_recorders_has_checkpoints(tmp_path: Path) -> None:
    recorder = StateRecorder("hidden", "v", examples=0)
    Trainer(EProp(model()), callbacks=[recorder, Checkpoint(tmp_path)]).train(*data(), epochs=1, batch_size=4)
    again = StateRecorder("hidden", "v", examples=0)
    history = Trainer(EProp(model()), callbacks=[again]).train(*data(), epochs=2, batch_size=4, resume=tmp_path)
    assert history.recorded["hidden.v"].places == [3, 4]


def test_memory_is_bounded_and_still_covers_the_training() -> None:
    recorder = WeightRecorder("hidden.bias", most=4)
    recorded, _ = trained(recorder, epochs=16)
    kept = recorded["hidden.bias"]
    assert len(kept) <= 4
    assert kept.places[0] == 1
    assert kept.places[-1] > 16
    assert len(set(np.diff(kept.places))) == 1
    assert kept.bytes == len(kept) * 6 * 8


def test_an_evaluation_returns_what_was_recorded() -> None:
    x, y = data()
    evaluator = model()
    plain = evaluator.evaluate(x, y, batch_size=3)
    recorders = [
        SpikeRecorder("hidden", examples=slice(2, 7, 2)),
        StateRecorder("hidden", "a", neurons=1, examples=[0, 7], key="adaptation"),
        SpikeRecorder("hidden", key="all"),
    ]
    figures, recorded = evaluator.evaluate(x, y, batch_size=3, recorders=recorders)
    assert figures == plain
    trajectory = evaluator.trajectory(x)
    assert recorded["hidden.spikes"].places == [2, 4, 6]
    np.testing.assert_array_equal(
        recorded["hidden.spikes"].array, trajectory.z("hidden")[:, [2, 4, 6]].transpose(1, 0, 2) > 0
    )
    expected = trajectory.records["hidden"].states["a"][:, [0, 7]][:, :, [1]].transpose(1, 0, 2)
    np.testing.assert_array_equal(recorded["adaptation"].array, expected)
    assert len(recorded["all"]) == 8


def test_the_primary_of_a_comparison_is_recorded() -> None:
    recorder = GradientRecorder("hidden.bias")
    comparison = GradientComparison(BPTT(model()), {"eprop": EProp(model())}, callbacks=[recorder], keep_every=1)
    result = comparison.train(*data(), batch_size=4, shuffle=False)
    kept = result.history.recorded["hidden.bias.gradient"]
    for batch in range(2):
        np.testing.assert_array_equal(kept.values[batch], result.matrix("bptt", "hidden.bias", batch))


def test_choices() -> None:
    assert chosen(None, 3, "neurons").tolist() == [0, 1, 2]
    assert chosen([0, -1], 3, "neurons").tolist() == [0, 2]
    for wrong in (3, -4, [0.5], [[0]], "a"):
        with pytest.raises(ArgumentError, match="neurons must be whole numbers below 3"):
            chosen(wrong, 3, "neurons")  # type: ignore[arg-type]


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match="did you mean 'hidden'"):
        trained(SpikeRecorder("hiden"))
    with pytest.raises(ArgumentError, match="unknown state of hidden"):
        trained(StateRecorder("hidden", "u"))
    with pytest.raises(ArgumentError, match=r"did you mean 'hidden\.bias'"):
        trained(WeightRecorder("hiden.bias"))
    with pytest.raises(ArgumentError, match="a key of its own"):
        trained(SpikeRecorder("hidden"), SpikeRecorder("hidden"))
    with pytest.raises(ArgumentError, match="records trainings"):
        model().evaluate(*data(), recorders=[WeightRecorder("hidden.bias")])
    with pytest.raises(ArgumentError, match="one shape"):
        _ = Recorded(("neuron",), [1, 2], [np.zeros(2), np.zeros(3)]).array
    with pytest.raises(ArgumentError, match="every"):
        SpikeRecorder("hidden", every=0)
