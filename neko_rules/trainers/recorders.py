"""Recorders: spikes, states, weights and gradients kept while a network trains or is evaluated.

A recorder is a callback. It looks at the batch of an update just before the update is made, with the weights that the
update will see, and only at the updates that it was asked for: others cost nothing. What it kept is in
``history.recorded[key]`` after ``train``, and is returned by ``Evaluator.evaluate(…, recorders=[…])``.

Memory is bounded: when more than ``most`` records have come, every second one is dropped and the interval doubles, so
that they still cover the whole training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules import arguments
from neko_rules.errors import ArgumentError, nearest
from neko_rules.layers.forward import Trajectory
from neko_rules.recorded import Recorded, Which, chosen
from neko_rules.trainers.callbacks import Callback

if TYPE_CHECKING:
    from neko_rules.trainers.trainer import Trainer


class Recorder(Callback):
    """What all recorders share: a key, the updates at which they look, and bounded memory.

    Args:
        key: the name in ``history.recorded``.
        axes: of each record.
        every: look at every so many updates, beginning with the first.
        steps: look at these updates (from 1) instead.
        most: the largest number of records.
    """

    def __init__(
        self, key: str, axes: tuple[str, ...], every: int = 1, steps: Sequence[int] | None = None, most: int = 1000
    ) -> None:
        self.key = str(key)
        self.every = arguments.integer("every", every, at_least=1)
        self.steps = None if steps is None else {arguments.integer("steps", int(step), at_least=1) for step in steps}
        self.most = arguments.integer("most", most, at_least=2)
        self.recorded = Recorded(axes)
        self._interval = self.every

    def look(self, trainer: Trainer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What is to be kept of an update, as an array that nobody else changes."""
        raise NotImplementedError(f"{type(self).__name__} must define look()")

    def look_at(self, trajectory: Trajectory, first: int) -> list[tuple[int, np.ndarray]]:
        """Numbers and records of the examples of a part of an evaluation; ``first`` is the number of its first one."""
        raise ArgumentError(f"{type(self).__name__} records trainings", works="pass it to Trainer(callbacks=[…])")

    def on_train_begin(self, trainer: Trainer) -> None:
        """Begin with nothing; a resumed run records from where it goes on."""
        if self.key in trainer.history.recorded:
            raise ArgumentError(
                "every recorder needs a key of its own", received=f"{self.key!r} twice", works="give one of them key=…"
            )
        self.begin()
        trainer.history.recorded[self.key] = self.recorded

    def begin(self) -> None:
        """Forget what was recorded."""
        self.recorded = Recorded(self.recorded.axes)
        self._interval = self.every

    def on_step_begin(self, trainer: Trainer, x: np.ndarray, y: np.ndarray) -> None:
        """Look, if it is time."""
        step = trainer.total_steps + 1
        if step in self.steps if self.steps is not None else (step - 1) % self._interval == 0:
            self._keep(step, self.look(trainer, x, y))

    def observe(self, trajectory: Trajectory, first: int) -> None:
        """Look at a part of an evaluation."""
        for place, value in self.look_at(trajectory, first):
            if len(self.recorded) < self.most:
                self._keep(place, value)

    def _keep(self, place: int, value: np.ndarray) -> None:
        self.recorded.places.append(place)
        self.recorded.values.append(value)
        if len(self.recorded) > self.most:
            del self.recorded.places[1::2], self.recorded.values[1::2]
            self._interval *= 2


class StateRecorder(Recorder):
    """Keeps a state variable of a population, [example, time, neuron] per record.

    Args:
        population: such as ``"hidden"``.
        state: such as ``"v"``; ``"z"`` for the output.
        neurons: which neurons.
        examples: which examples: positions in the batch while training, numbers in the data set in an evaluation.
        times: which time steps.
        key: the name in ``history.recorded``; by default population and state.
        every, steps, most: as for Recorder.

    Example:
        >>> from neko_rules import ALIF, EProp, Evaluator, StateRecorder, Trainer
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(8, 5, 3)), rng.integers(2, size=8)
        >>> recorder = StateRecorder("hidden", "v", neurons=slice(0, 2), examples=0, every=2)
        >>> model = Evaluator(ALIF(4, 2))
        >>> history = Trainer(EProp(model), callbacks=[recorder]).train(x, y, epochs=2, batch_size=4)
        >>> recorded = history.recorded["hidden.v"]
        >>> recorded.places, recorded.array.shape
        ([1, 3], (2, 1, 5, 2))
        >>> figures, recorded = model.evaluate(x, y, recorders=[recorder])
        >>> recorded["hidden.v"].array.shape
        (1, 5, 2)
    """

    def __init__(
        self,
        population: str,
        state: str,
        neurons: Which = None,
        examples: Which = None,
        times: Which = None,
        *,
        key: str | None = None,
        every: int = 1,
        steps: Sequence[int] | None = None,
        most: int = 1000,
    ) -> None:
        super().__init__(key or f"{population}.{state}", ("example", "time", "neuron"), every, steps, most)
        self.population, self.variable = population, state
        self.neurons, self.examples, self.times = neurons, examples, times

    def look(self, trainer: Trainer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The state in a forward pass of the chosen examples with the weights as they are."""
        examples = chosen(self.examples, len(x), "examples")
        model: Any = trainer.rule.model
        return self._cut(model.trajectory(x[examples]))

    def look_at(self, trajectory: Trajectory, first: int) -> list[tuple[int, np.ndarray]]:
        """The state of the chosen examples that this part has, [time, neuron] each."""
        count = trajectory.inputs.shape[1]
        wanted = self._wanted(first, count)
        values = self._cut(trajectory)
        return [(first + place, values[place].copy()) for place in wanted]

    def _wanted(self, first: int, count: int) -> list[int]:
        """Positions in a part of an evaluation; a slice or a number counts from the start of the data set."""
        if self.examples is None:
            return list(range(count))
        if isinstance(self.examples, slice):
            return [i for i in range(count) if first + i in range(*self.examples.indices(first + count))]
        return [i for i in range(count) if first + i in np.atleast_1d(np.asarray(self.examples))]

    def _cut(self, trajectory: Trajectory) -> np.ndarray:
        if self.population not in trajectory.records:
            raise ArgumentError(
                "unknown population", received=self.population, works=nearest(self.population, trajectory.records)
            )
        record = trajectory.records[self.population]
        histories = {**record.states, "z": record.z}
        if self.variable not in histories:
            raise ArgumentError(
                f"unknown state of {self.population}", received=self.variable, works=nearest(self.variable, histories)
            )
        history = histories[self.variable]
        times = chosen(self.times, history.shape[0], "times")
        neurons = chosen(self.neurons, history.shape[2], "neurons")
        return self._stored(history[times][:, :, neurons].transpose(1, 0, 2))

    def _stored(self, values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values)


class SpikeRecorder(StateRecorder):
    """Keeps the spikes of a population as one byte each, [example, time, neuron] per record.

    Args:
        population: such as ``"hidden"``.
        neurons, examples, times, every, steps, most: as for StateRecorder.
        key: the name in ``history.recorded``; by default the population's with ``.spikes``.

    Example:
        >>> from neko_rules import LIF, Evaluator, SpikeRecorder
        >>> model = Evaluator(LIF(4, 2))
        >>> x, y = np.ones((6, 5, 3)), np.zeros(6, int)
        >>> figures, recorded = model.evaluate(x, y, batch_size=4, recorders=[SpikeRecorder("hidden", examples=[1, 5])])
        >>> recorded["hidden.spikes"].places, recorded["hidden.spikes"].array.dtype
        ([1, 5], dtype('bool'))
    """

    def __init__(
        self,
        population: str,
        neurons: Which = None,
        examples: Which = None,
        times: Which = None,
        *,
        key: str | None = None,
        every: int = 1,
        steps: Sequence[int] | None = None,
        most: int = 1000,
    ) -> None:
        name = key or f"{population}.spikes"
        super().__init__(population, "z", neurons, examples, times, key=name, every=every, steps=steps, most=most)

    def _stored(self, values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values != 0)


class WeightRecorder(Recorder):
    """Keeps a parameter as it is before an update.

    Args:
        parameter: such as ``"hidden.recurrent.weight"``.
        sources: which rows of a weight matrix (sending neurons).
        targets: which columns (receiving neurons), or entries of a bias.
        key: the name in ``history.recorded``; by default the parameter's.
        every, steps, most: as for Recorder.

    Example:
        >>> from neko_rules import ALIF, EProp, Evaluator, Trainer, WeightRecorder
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(8, 5, 3)), rng.integers(2, size=8)
        >>> recorder = WeightRecorder("hidden.input.weight", targets=slice(0, 2))
        >>> history = Trainer(EProp(Evaluator(ALIF(4, 2))), callbacks=[recorder]).train(x, y, epochs=1, batch_size=4)
        >>> history.recorded["hidden.input.weight"].array.shape
        (2, 3, 2)
    """

    quantity = ""

    def __init__(
        self,
        parameter: str,
        sources: Which = None,
        targets: Which = None,
        *,
        key: str | None = None,
        every: int = 1,
        steps: Sequence[int] | None = None,
        most: int = 1000,
    ) -> None:
        super().__init__(key or parameter + self.quantity, ("source", "target"), every, steps, most)
        self.parameter, self.sources, self.targets = parameter, sources, targets

    def look(self, trainer: Trainer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The chosen part of the parameter."""
        rule: Any = trainer.rule
        return self._cut(rule.model.network.parameters)

    def _cut(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        if self.parameter not in arrays:
            raise ArgumentError("unknown parameter", received=self.parameter, works=nearest(self.parameter, arrays))
        array = arrays[self.parameter]
        if array.ndim > 1:
            array = array[chosen(self.sources, array.shape[0], "sources")]
        return np.ascontiguousarray(array[..., chosen(self.targets, array.shape[-1], "targets")])


class GradientRecorder(WeightRecorder):
    """Keeps the gradient of a parameter that an update is made from; the rule is evaluated once more for it.

    Args:
        parameter, sources, targets, every, steps, most: as for WeightRecorder.
        key: the name in ``history.recorded``; by default the parameter's with ``.gradient``.

    Example:
        >>> from neko_rules import ALIF, EProp, Evaluator, GradientRecorder, Trainer
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(8, 5, 3)), rng.integers(2, size=8)
        >>> recorder = GradientRecorder("readout.bias", steps=[2])
        >>> history = Trainer(EProp(Evaluator(ALIF(4, 2))), callbacks=[recorder]).train(x, y, epochs=1, batch_size=4)
        >>> history.recorded["readout.bias.gradient"].places
        [2]
    """

    quantity = ".gradient"

    def look(self, trainer: Trainer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The chosen part of the gradient."""
        rule: Any = trainer.rule
        if not hasattr(rule, "gradients"):
            raise ArgumentError("a GradientRecorder needs a rule with gradients", received=type(rule).__name__)
        return self._cut(rule.gradients(x, y))
