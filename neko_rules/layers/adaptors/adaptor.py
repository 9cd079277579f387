"""Adaptor: what a differentiable model without neurons of ours has to offer to an Evaluator and to rules.

Static models take each example as it is, [batch, …feature]; to everything around them they are sequences of one time
step, so that inputs are [1, batch, …feature] inside and outputs [1, batch, n_out]. With ``sequence=True`` a model takes
[batch, time, feature] and returns [batch, time, n_out].

Rules run a model in training mode (``forward``), evaluation and prediction in evaluation mode (``infer``). Dropout
draws from a seed that the rule hands in for every step. What a model keeps of its data (the running mean and variance
of batch normalisation) is brought up to date once per step by ``observe``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Backend, Parameters, get_backend
from neko_rules.errors import ArgumentError, DataError, IncompatibleError, nearest
from neko_rules.layers.cell import Cell
from neko_rules.layers.forward import Record, Trajectory
from neko_rules.layers.network import TASK_TYPES
from neko_rules.layers.pooling import POOLINGS
from neko_rules.layers.protocol import NetworkProtocol
from neko_rules.on_request import own_state

OUTPUT = "output"


@dataclass(frozen=True)
class Outputs(Cell):
    """The outputs of a wrapped model, which neither spike nor have a state."""

    spiking: ClassVar[bool] = False


class OutputOnly:
    """The graph of a model of which nothing but the output is known."""

    output = OUTPUT
    order: tuple[str, ...] = ()
    connections: tuple[Any, ...] = ()

    def cell(self, name: str) -> Cell:
        """What stands at the output."""
        return Outputs()


class Adaptor(NetworkProtocol):
    """A user's own differentiable model; subclasses speak for one library.

    Args:
        backend: the backend of the library.
        inputs: shape of one example (an integer for a vector); found at the first data if left out.
        sequence: whether the model takes and returns sequences, [batch, time, …].
        task_type: ``"classification"`` or ``"regression"``: how targets are read.
        readout: of sequences: ``"sequence"``, ``"last"``, ``"mean"`` or ``"max"``.
        dt: length of a time step in seconds.
    """

    stochastic: ClassVar[bool] = True
    graph = OutputOnly()
    spiking: tuple[str, ...] = ()
    learned: ClassVar[dict[str, Any]] = {}
    dtype = "float32"

    def __init__(
        self,
        backend: str | Backend,
        *,
        inputs: int | Sequence[int] | None = None,
        sequence: bool = False,
        task_type: str = "classification",
        readout: str = "sequence",
        dt: float = 1e-3,
    ) -> None:
        self.nx = get_backend(backend)
        self.sequence = arguments.flag("sequence", sequence)
        self.task_type = arguments.choice("task_type", task_type, TASK_TYPES)
        self.readout = arguments.choice("readout", readout, POOLINGS) if sequence else "last"
        self.dt = arguments.number("dt", dt, above=0)
        self.inputs: tuple[int, ...] | None = None
        self._outputs: int | None = None
        self._seed: Array | None = None
        self._evaluating = False
        if inputs is not None:
            self.build((inputs,) if isinstance(inputs, int) else tuple(inputs))

    # What a subclass writes.

    @property
    def values(self) -> Parameters:
        """The trainable parameters by name, which nothing changes in place."""
        raise NotImplementedError

    @values.setter
    def values(self, values: Parameters) -> None:
        raise NotImplementedError

    def call(self, values: Parameters, x: Array, training: bool) -> Array:
        """Outputs of the model, [batch, n_out] or [batch, time, n_out]; changes nothing."""
        raise NotImplementedError

    # What an Evaluator and rules need.

    @property
    def backend(self) -> str:
        """The name of the backend."""
        return self.nx.name

    @property
    def static(self) -> bool:
        """Whether the model takes each example as it is."""
        return not self.sequence

    @property
    def sized(self) -> bool:
        """Whether the number of outputs is known, which the first data show."""
        return self._outputs is not None

    @property
    def outputs(self) -> int:
        """The number of output units."""
        if self._outputs is None:
            raise ArgumentError(
                "the number of outputs of this model is not known yet", works="give inputs=… or run it on data first"
            )
        return self._outputs

    def build(self, inputs: Any) -> None:
        """Find the number of outputs for examples of a shape.

        Raises:
            DataError: the model was built for another shape, cannot run on it, or returns something of another form.
            IncompatibleError: it has what the adaptor of its library cannot keep to.
        """
        shape = (inputs,) if isinstance(inputs, int) else tuple(inputs)
        if self.inputs == shape:
            return
        if self.inputs is not None:
            raise DataError(f"this model takes examples of shape {self.inputs}", received=f"shape {shape}")
        example = np.zeros((2, *((3,) if self.sequence else ()), *shape), self.dtype)
        try:
            found = self.nx.jit(lambda x: self._run(x))(self.nx.asarray(example))
        except IncompatibleError:
            raise
        except Exception as error:
            raise DataError(
                f"{type(self).__name__} cannot run on examples of shape {shape}",
                received=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            ) from error
        wanted = example.shape[: 2 if self.sequence else 1]
        form = "[batch, time, n_out]" if self.sequence else "[batch, n_out]"
        if not self.nx.is_tensor(found):
            raise DataError(
                f"{type(self).__name__} must return {form}, in one array",
                received=f"a {type(found).__name__}",
                works="wrap a model around this one that returns the outputs alone",
            )
        if len(found.shape) != len(wanted) + 1 or tuple(found.shape[:-1]) != wanted:
            raise DataError(f"{type(self).__name__} must return {form}", received=f"shape {tuple(found.shape)}")
        self.inputs, self._outputs = shape, int(found.shape[-1])

    def _run(self, x: Array) -> Array:
        return self.call(self.values, x, training=False)

    def within_bounds(self, parameters: Parameters) -> Parameters:
        """The parameters themselves: none of them is bounded."""
        return parameters

    def is_weight(self, name: str) -> bool:
        """Whether a parameter has two axes or more and is no bias: names say less, as scales are ``weight`` in torch.

        Keras has biases of two axes, in GRUs and in attention.
        """
        return self._axes(name) > 1 and not name.endswith("bias")

    def _axes(self, name: str) -> int:
        return len(self.values[name].shape)

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Take over parameters by name (all or some of them).

        Raises:
            ArgumentError: a name is unknown, a shape differs, or a value is NaN or infinite.
        """
        self.require_built()
        values = self.values
        for name, value in parameters.items():
            if name not in values:
                raise ArgumentError("unknown parameter", received=name, works=nearest(name, values))
            array = np.array(value, self.dtype)
            if array.shape != tuple(values[name].shape):
                raise ArgumentError(f"{name} must have shape {tuple(values[name].shape)}", received=array.shape)
            if not np.isfinite(array).all():
                raise ArgumentError(f"{name} must be finite in {self.dtype}", received="NaN or infinite values")
            values[name] = self.nx.asarray(array)
        self.values = values

    def forward(self, parameters: Parameters, inputs: Array) -> Trajectory:
        """Run in training mode on inputs [1, batch, …feature], or [time, batch, feature] for sequences."""
        return self._trajectory(parameters, inputs, training=not self._evaluating)

    def infer(self, parameters: Parameters, inputs: Array) -> Trajectory:
        """Run in evaluation mode."""
        return self._trajectory(parameters, inputs, training=False)

    def _trajectory(self, parameters: Parameters, inputs: Array, training: bool) -> Trajectory:
        outputs = self.call(parameters, self._swapped(inputs) if self.sequence else inputs[0], training)
        outputs = self._swapped(outputs) if self.sequence else self.nx.expand_dims(outputs, 0)
        return Trajectory(inputs, {OUTPUT: Record({}, outputs, None)})

    def _swapped(self, array: Array) -> Array:
        return self.nx.transpose(array, (1, 0, *range(2, len(array.shape))))

    def loss_gradient(
        self, model: Any, values: Parameters, inputs: Array, target: Array, mask: Array
    ) -> tuple[Any, Parameters]:
        """The forward pass judged by an Evaluator, and dE/dparameter by the library's automatic differentiation."""
        held = []

        def loss(parameters: Parameters) -> Array:
            held.append(model.judge(self.forward(parameters, inputs), target, mask))
            return held[-1].loss

        _, gradients = self.nx.value_and_grad(loss)(values)
        return held[-1], gradients

    # Noise on the outputs of layers, where a library lets it be added.

    def visiting(self, visit: Callable[[str, Array], Array], cut: bool = False) -> AbstractContextManager[None]:
        """Let ``visit(name, output)`` replace the output of every layer that has parameters, while this is open.

        Args:
            visit: is called in the order in which the layers are.
            cut: whether no derivative goes through the inputs of these layers.
        """
        raise NotImplementedError(f"{type(self).__name__} must define visiting()")

    def nodes(self, steps: int, examples: int) -> dict[str, tuple[int, ...]]:
        """The shape of the outputs of every layer that has parameters, for a batch of that size.

        Raises:
            IncompatibleError: a layer returns something else than one array.
        """
        assert self.inputs is not None, "a batch has been checked, which builds the model"
        found: dict[str, tuple[int, ...]] = {}

        def look(name: str, output: Array) -> Array:
            if not self.nx.is_tensor(output):
                raise IncompatibleError(
                    f"noise can be added to the outputs of layers that return one array; {name} returns more",
                    received=type(output).__name__,
                    works="use weight_perturbation",
                )
            found[name] = tuple(int(size) for size in output.shape)
            return output

        shape = (examples, *((steps,) if self.sequence else ()), *self.inputs)
        with self.visiting(look):
            self.call(self.values, self.nx.asarray(np.zeros(shape, self.dtype)), training=False)
        return found

    def noisy(self, parameters: Parameters, inputs: Array, noise: Parameters) -> Trajectory:
        """``forward`` with noise added to the outputs of layers, by their names."""
        with self.visiting(lambda name, output: output + noise[name]):
            return self.forward(parameters, inputs)

    def node_score(self, parameters: Parameters, inputs: Array, noise: Parameters, weights: Parameters) -> Array:
        """Σ weights · outputs of layers in a noisy pass, each a function of that layer's own parameters alone.

        Its derivative with respect to the parameters is that of log p(outputs), where weights are noise/σ².
        """
        parts: list[Array] = []

        def visit(name: str, output: Array) -> Array:
            parts.append(self.nx.sum(weights[name] * output))
            return output + noise[name]

        with self.visiting(visit, cut=True):
            self.forward(parameters, inputs)
        return self.nx.sum(self.nx.stack(parts, 0))

    @contextmanager
    def seeded(self, seed: Array | None) -> Iterator[None]:
        """Let dropout draw from a seed, a whole number in an array."""
        before, self._seed = self._seed, seed
        try:
            yield
        finally:
            self._seed = before

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let ``forward`` run in evaluation mode: no dropout, and the running statistics of batch normalisation."""
        before, self._evaluating = self._evaluating, True
        try:
            yield
        finally:
            self._evaluating = before

    def _called(self, values: Parameters, x: Array, training: bool) -> tuple[Array, Any]:
        """Outputs, and what the model would keep of its data afterwards, where a library has both as a function."""
        raise NotImplementedError(f"{type(self).__name__} must define _called()")

    @cached_property
    def _compiled_observation(self) -> Callable[..., Any]:
        # Compiled as a training step is: eager JAX and TensorFlow draw other random numbers from the same seed.
        def run(values: Parameters, x: Array, *seed: Array) -> Any:
            with self.seeded(seed[0] if seed else None):
                return self._called(values, x, training=True)[1]

        return self.compiled(run)

    def _observed_after(self, inputs: Array) -> Any:
        """What a pass in training mode leaves the model to keep of its data."""
        x = self._swapped(inputs) if self.sequence else inputs[0]
        return self._compiled_observation(self.values, x, *(() if self._seed is None else (self._seed,)))

    def __getstate__(self) -> dict[str, Any]:
        return own_state(self)

    def _copied(self) -> Self:
        return copy.copy(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.backend}, {self.dtype})"
