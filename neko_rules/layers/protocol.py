"""Protocol of networks: what rules, evaluators and samplers ask of every model, the package's own and wrapped ones.

The answers here are those of a model whose forward pass is a fixed function of parameters and inputs: it draws no
random numbers, keeps nothing of its data, and runs in evaluation as in training. A model of which something else is
true says so itself.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np

from neko_rules import tensor_file
from neko_rules.backend import Array, Backend, Parameters
from neko_rules.errors import ArgumentError
from neko_rules.layers.forward import Trajectory
from neko_rules.layers.graph import Connection, check_synapses
from neko_rules.layers.quantized import rounded_weights

OBSERVED = "observed/"
"""How the names begin under which a file has what a model keeps beside its parameters."""


class NetworkProtocol:
    """A model as rules, evaluators and samplers see it; Network and the adaptors are the two kinds.

    Example:
        >>> from neko_rules import LIF
        >>> network = LIF(8, 2, inputs=3)
        >>> network.static, network.stochastic, network.observed, network.fan_in("hidden.input.weight")
        (False, False, {}, 3)
    """

    offers: ClassVar[tuple[str, ...]] = ("forward", "loss_gradient")
    """What rules can have of it: beside these ``"cells"``, neurons with known derivatives, and ``"nodes"``, neurons or
    layers that noise can be added to."""

    stochastic: ClassVar[bool] = False
    """Whether a forward pass in training draws random numbers, from a seed that ``seeded`` hands in."""

    nx: Backend
    values: Parameters
    graph: Any
    """What is known of its inside: the Graph of a network, of a wrapped model the output alone."""

    weight_bits: int = 0
    """Bits of the weights that a forward pass sees; 0: all of them (``neko_rules.layers.quantized.quantize``)."""

    @property
    def static(self) -> bool:
        """Whether the model takes each example as it is, which makes it a sequence of one time step."""
        return False

    @property
    def built(self) -> bool:
        """Whether the parameters exist."""
        return True

    @property
    def sized(self) -> bool:
        """Whether the number of outputs is known."""
        return True

    def require_built(self) -> None:
        """Refuse to go on without parameters."""
        if not self.built:
            raise ArgumentError("this network has no weights yet", works="give inputs=… or run it on data first")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return tuple(self.values)

    @property
    def layers(self) -> tuple[str, ...]:
        """What stands before the last dot in the names of parameters, in order: that for which a prior can be given."""
        return tuple(dict.fromkeys(name.rpartition(".")[0] or name for name in self.names))

    def is_weight(self, name: str) -> bool:
        """Whether a parameter is one of the weights, which a weight decay shrinks."""
        return name.endswith(".weight")

    def fan_in(self, name: str) -> int:
        """How many inputs a weight sums over: all axes but the last, which is that of the neurons; 1 for a vector."""
        return math.prod(tuple(self.values[name].shape)[:-1])

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The parameters by name, as NumPy copies."""
        self.require_built()
        return {name: self.nx.to_numpy(value) for name, value in self.values.items()}

    @property
    def partial(self) -> dict[str, Connection]:
        """The connections some of whose weights have to stay zero, by the name of the weight."""
        return {connection.weight: connection for connection in self.graph.connections if connection.partial}

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Which entries of a parameter are synapses, by name, where others have to stay zero: bool, in its shape."""
        return {name: each.synapses(*self.values[name].shape) for name, each in self.partial.items()}

    @property
    def size(self) -> int:
        """How many numbers there are to be learned: those that have to stay zero do not count.

        Example: three neurons, of which none has a synapse with itself.

            >>> from neko_rules import LIF
            >>> LIF(3, 2, inputs=1).size == (3 + 3 * 2 + 3) + (3 * 2 + 2)
            True
        """
        self.require_built()
        masks = self.masks
        return sum(
            int(np.count_nonzero(masks[name])) if name in masks else math.prod(tuple(value.shape))
            for name, value in self.values.items()
        )

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Take over parameters by name (all or some of them)."""
        raise NotImplementedError(f"{type(self).__name__} must define set_parameters()")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters by name in the safetensors format, whole or not at all.

        Of a wrapped model also what it keeps beside them (``observed``), under names that begin with ``observed/``.

        Raises:
            CheckpointError: the file cannot be written.

        Example:
            >>> import tempfile
            >>> from neko_rules import LIF
            >>> trained, other = LIF(8, 2, inputs=3, seed=1), LIF(8, 2, inputs=3, backend="numpy")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     trained.save(f"{folder}/weights.safetensors")
            ...     other.load(f"{folder}/weights.safetensors")
            >>> bool((other.parameters["hidden.input.weight"] == trained.parameters["hidden.input.weight"]).all())
            True
        """
        kept = {OBSERVED + name: self.nx.to_numpy(value) for name, value in self.observed.items()}
        tensor_file.write(path, self.parameters | kept, tensor_file.WEIGHTS)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over parameters that ``save``, a run or any other program has written, on whatever library.

        Raises:
            CheckpointError: the file cannot be read, or is damaged.
            ArgumentError: a parameter, or what a wrapped model keeps beside them, is unknown or lacking, or has another
                shape than here; or a weight is not zero where there is no synapse here.
        """
        arrays = tensor_file.read(path, tensor_file.WEIGHTS)[0]
        kept = {OBSERVED + name: tuple(value.shape) for name, value in self.observed.items()}
        lacking = [name for name in (*self.names, *kept) if name not in arrays]
        if lacking:
            works = "a file of a network made alike, or set_parameters() for some of them"
            what = "all parameters and all that the model keeps beside them" if kept else "all parameters"
            raise ArgumentError(f"{path} must hold {what}", received=f"no {', '.join(lacking)}", works=works)
        for name, shape in kept.items():
            if arrays[name].shape != shape:
                raise ArgumentError(f"{name} must have shape {shape}", received=arrays[name].shape)
        given = {name: value for name, value in arrays.items() if name not in kept}
        check_synapses(self.graph.connections, given)
        self.set_parameters(given)
        if kept:
            self.observed = {name.removeprefix(OBSERVED): self.nx.asarray(arrays[name]) for name in kept}

    def clone(self) -> Self:
        """The same model with parameters of its own."""
        raise NotImplementedError(f"{type(self).__name__} must define clone()")

    # A forward pass.

    def seen(self, parameters: Parameters) -> Parameters:
        """The parameters as a forward pass sees them: weights rounded to ``weight_bits``."""
        return rounded_weights(self.nx, parameters, self.weight_bits)

    def forward(self, parameters: Parameters, inputs: Array) -> Trajectory:
        """A forward pass in training over inputs [time, batch, feature]."""
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    def infer(self, parameters: Parameters, inputs: Array) -> Trajectory:
        """A forward pass in evaluation."""
        return self.forward(parameters, inputs)

    @contextmanager
    def seeded(self, seed: Array | None) -> Iterator[None]:
        """Let what is ``stochastic`` draw from a seed, a whole number in an array."""
        yield

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let ``forward`` run as ``infer`` does: a fixed function of parameters and inputs."""
        yield

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that runs this model, compiled; it sees what the model keeps of its data as it is at each call."""
        return self.nx.jit(function)

    # What is kept of the data.

    @property
    def observed(self) -> Parameters:
        """What the model keeps beside its parameters, by name: running means and variances, and what is frozen."""
        return {}

    @observed.setter
    def observed(self, observed: Parameters) -> None:
        return

    @property
    def observes(self) -> bool:
        """Whether a pass in training may change what is kept of the data, with which examples are no longer apart."""
        return bool(self.observed)

    def observe(self, inputs: Array) -> None:
        """Bring what the model keeps of its data up to date with a batch, once per step, in the dropout of the step."""
