"""JaxModel: a function and its parameters (Flax, Equinox, plain JAX), for rules that need a loss and its gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Self

from neko_rules.backend import Array, Backend, Parameters
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.layers.adaptors.adaptor import Adaptor


class JaxModel(Adaptor):
    """A JAX function of parameters and data as a model for BPTT, Manhattan, samplers and perturbation rules.

    Args:
        function: ``function(parameters, x)`` → outputs, [batch, n_out]. It is also given ``key`` (a JAX random key, in
            training) and ``training`` (a bool) if it has arguments of these names; with a ``state`` it is called as
            ``function(parameters, state, x)`` and returns outputs and the next state.
        parameters: a pytree of floating-point arrays: Flax's ``variables["params"]``, the arrays of an Equinox module
            (``equinox.partition(module, equinox.is_array)``), a dict.
        state: a pytree that the function keeps of its data, such as Flax's ``batch_stats``.
        inputs: shape of one example; found at the first data if left out.
        sequence: whether it takes and returns sequences.
        backend: ``"jax"``, or a JaxBackend.
        task_type, readout, dt: as for Adaptor.

    Attributes:
        tree: the parameters as the pytree that the function takes; the user's own tree is never changed.
        state: the state.

    Example:
        >>> import numpy as np
        >>> from neko_rules import JaxModel
        >>> first = {"w": np.zeros((3, 2), np.float32), "b": np.ones(2, np.float32)}
        >>> model = JaxModel(lambda p, x: x @ p["w"] + p["b"], first, inputs=3)
        >>> model.parameters["b"], model.outputs
        (array([1., 1.], dtype=float32), 2)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: Any,
        *,
        state: Any = None,
        inputs: int | Sequence[int] | None = None,
        sequence: bool = False,
        backend: str | Backend = "jax",
        task_type: str = "classification",
        readout: str = "sequence",
        dt: float = 1e-3,
    ) -> None:
        import jax

        if not callable(function):
            raise IncompatibleError("a JaxModel wraps a function of parameters and data", received=function)
        self.function = function
        self._accepted = {"key", "training"} & set(inspect.signature(function).parameters)
        leaves, self._structure = jax.tree_util.tree_flatten_with_path(parameters)
        self._names = [_name(path) for path, _ in leaves]
        kept = [_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
        if twice := sorted({name for names in (self._names, kept) for name in names if names.count(name) > 1}):
            raise IncompatibleError(
                "every leaf of a JaxModel needs a name of its own, its path with dots",
                received=f"{', '.join(twice)} more than once",
                works="take the dots out of the keys",
            )
        types = {str(jax.numpy.asarray(leaf).dtype) for _, leaf in leaves}
        if len(types) != 1 or not types <= {"float32", "float64"}:
            raise IncompatibleError(
                "a JaxModel needs parameters, all of float32 or all of float64",
                received=", ".join(sorted(types)) or "none",
            )
        self.dtype = types.pop()
        # In the types that JAX gives them: NumPy's doubles would stay doubles where JAX has none of its own.
        self.state = jax.tree_util.tree_map(jax.numpy.asarray, state)
        self._values: Parameters = {}
        self._leaves = [leaf for _, leaf in leaves]
        super().__init__(backend, inputs=None, sequence=sequence, task_type=task_type, readout=readout, dt=dt)
        if self.nx.name != "jax":
            raise ArgumentError("a JaxModel runs on the jax backend", received=self.nx.name)
        given = zip(self._names, self._leaves, strict=True)
        self._values = {name: self.nx.asarray(leaf, self.dtype) for name, leaf in given}
        if inputs is not None:
            self.build(inputs)

    @property
    def values(self) -> Parameters:
        """The parameters by their path in the tree."""
        return dict(self._values)

    @values.setter
    def values(self, values: Parameters) -> None:
        self._values = {name: values[name] for name in self._names}

    @property
    def tree(self) -> Any:
        """The parameters in the form that the function takes."""
        return self._tree(self._values)

    def _tree(self, values: Parameters) -> Any:
        import jax

        return jax.tree_util.tree_unflatten(self._structure, [values[name] for name in self._names])

    @property
    def observed(self) -> Parameters:
        """The arrays of the state, by their path."""
        import jax

        leaves, _ = jax.tree_util.tree_flatten_with_path(self.state)
        return {_name(path): self.nx.asarray(leaf) for path, leaf in leaves}

    @observed.setter
    def observed(self, observed: Parameters) -> None:
        import jax

        leaves, structure = jax.tree_util.tree_flatten_with_path(self.state)
        self.state = jax.tree_util.tree_unflatten(structure, [observed[_name(path)] for path, _ in leaves])

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function compiled with the state as an argument: JAX would keep the numbers it had at the first call."""
        if self.state is None:
            return self.nx.jit(function)

        def run(observed: Parameters, *given: Any) -> Any:
            before = self.state
            try:
                self.observed = observed
                return function(*given)
            finally:
                self.state = before

        jitted = self.nx.jit(run)
        return lambda *given: jitted(self.observed, *given)

    def call(self, values: Parameters, x: Array, training: bool) -> Array:
        """Outputs with the given parameters."""
        return self._called(values, x, training)[0]

    def _called(self, values: Parameters, x: Array, training: bool) -> tuple[Array, Any]:
        import jax

        named: dict[str, Any] = {}
        if "training" in self._accepted:
            named["training"] = training
        if "key" in self._accepted:
            seed = 0 if self._seed is None else jax.numpy.asarray(self._seed).astype("uint32")
            named["key"] = jax.random.key(seed)
        if self.state is None:
            return self.function(self._tree(values), x, **named), None
        outputs, state = self.function(self._tree(values), self.state, x, **named)
        return outputs, state

    def observe(self, inputs: Array) -> None:
        """One pass in training mode, which gives the next state."""
        if self.state is not None:
            self.state = self._observed_after(self.nx.asarray(inputs))

    def loss_gradient(
        self, model: Any, values: Parameters, inputs: Array, target: Array, mask: Array
    ) -> tuple[Any, Parameters]:
        """The forward pass judged, and dE/dparameter; what is measured leaves the derivative as its by-product."""
        import jax

        found: dict[str, Any] = {}

        def loss(parameters: Parameters) -> tuple[Array, Any]:
            judgement = model.judge(self.forward(parameters, inputs), target, mask)
            found["type"] = type(judgement)
            return judgement.loss, (judgement.signals, judgement.totals)

        (value, (signals, totals)), gradients = jax.value_and_grad(loss, has_aux=True)(values)
        return found["type"](value, signals, totals), gradients

    def clone(self) -> Self:
        """The same model, to be trained on its own."""
        return self._copied()

    def __repr__(self) -> str:
        count = sum(int(leaf.size) for leaf in self._values.values())
        return f"JaxModel({getattr(self.function, '__name__', 'function')}, {count} parameters, {self.dtype})"


def _name(path: Sequence[Any]) -> str:
    """A path in a pytree with dots: ``layers.0.weight``."""
    parts = (getattr(each, "key", getattr(each, "name", getattr(each, "idx", each))) for each in path)
    return ".".join(str(each) for each in parts)
