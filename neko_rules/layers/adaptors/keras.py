"""KerasModel: any keras.Model on the TensorFlow backend, trained by rules that need a loss and its gradient alone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np

from neko_rules.backend import Array, Backend, Parameters
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.layers.adaptors.adaptor import Adaptor

SEED = "seed_generator_state"


class KerasModel(Adaptor):
    """A Keras model as a model for BPTT, Manhattan, samplers and perturbation rules.

    The model stays the user's own: its variables hold the trained parameters at every moment. Parameters are named by
    their path without the model's own name, with dots: ``dense.kernel``. Names that Keras gave to layers are numbered
    within the model: the second is ``dense_1``, however many layers the process has made before. The model returns
    logits: it ends without a softmax, as the losses here have it. Constraints of its variables end every update; losses
    of its own (regularizers, ``add_loss``) are refused.

    Args:
        model: the model; takes [batch, …feature], or [batch, time, feature] with ``sequence=True``.
        inputs: shape of one example; found at the first data if left out.
        sequence: whether it takes and returns sequences.
        backend: ``"tensorflow"``, or a TensorflowBackend.
        task_type, readout, dt: as for Adaptor.

    Raises:
        IncompatibleError: it is no Keras model, has losses of its own, or Keras does not run on TensorFlow.

    Example:
        >>> import keras
        >>> from neko_rules import KerasModel
        >>> model = KerasModel(keras.Sequential([keras.layers.Dense(4, name="first")]), inputs=3)
        >>> {name: value.shape for name, value in model.parameters.items()}
        {'first.kernel': (3, 4), 'first.bias': (4,)}
    """

    offers: ClassVar[tuple[str, ...]] = ("forward", "loss_gradient", "nodes")

    def __init__(
        self,
        model: Any,
        *,
        inputs: int | Sequence[int] | None = None,
        sequence: bool = False,
        backend: str | Backend = "tensorflow",
        task_type: str = "classification",
        readout: str = "sequence",
        dt: float = 1e-3,
    ) -> None:
        import keras

        if not isinstance(model, keras.Model):
            raise IncompatibleError("a KerasModel wraps a keras.Model", received=model)
        if keras.config.backend() != "tensorflow":
            raise IncompatibleError(
                "a KerasModel needs Keras on TensorFlow",
                received=f"Keras on {keras.config.backend()}",
                works="set KERAS_BACKEND=tensorflow before keras is imported",
            )
        self.model = model
        self.dtype = str(model.dtype_policy.variable_dtype)
        super().__init__(backend, inputs=inputs, sequence=sequence, task_type=task_type, readout=readout, dt=dt)
        if self.nx.name != "tensorflow":
            raise ArgumentError("a KerasModel runs on the tensorflow backend", received=self.nx.name)

    @property
    def built(self) -> bool:
        """Whether the variables exist."""
        return bool(self.model.built and self.model.trainable_variables)

    def build(self, inputs: Any) -> None:
        """Make the variables for examples of a shape, and find the number of outputs."""
        shape = (inputs,) if isinstance(inputs, int) else tuple(inputs)
        if not self.built:
            self.model(np.zeros((1, *((3,) if self.sequence else ()), *shape), self.dtype))
        super().build(shape)

    def _named(self, variables: Sequence[Any]) -> dict[str, Any]:
        prefix = f"{self.model.name}/"
        numbered = self._numbered()
        return {
            ".".join(numbered.get(part, part) for part in each.path.removeprefix(prefix).split("/")): each
            for each in variables
        }

    def _numbered(self) -> dict[str, str]:
        """The names that Keras itself gave to layers, which count all layers of the process, counted in this model."""
        automatic, given = {}, set()
        for layer in self.model._flatten_layers(include_self=False):
            stem = re.sub(r"_\d+$", "", layer.name)
            if stem.replace("_", "") == type(layer).__name__.replace("_", "").lower():
                automatic[layer.name] = stem
            else:
                given.add(layer.name)
        # In the order of the variables, which is the same in a model made alike, and whatever of it is frozen.
        parts = dict.fromkeys(part for each in self.model.variables for part in each.path.split("/"))
        found: dict[str, str] = {}
        for part in parts:
            if part in automatic:
                stem = automatic[part]
                names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(1)))
                found[part] = next(name for name in names if name not in given)
                given.add(found[part])
        return found

    @property
    def values(self) -> Parameters:
        """The trainable variables' values."""
        import tensorflow as tf

        return {name: tf.identity(each.value) for name, each in self._named(self.model.trainable_variables).items()}

    @values.setter
    def values(self, values: Parameters) -> None:
        for name, each in self._named(self.model.trainable_variables).items():
            each.assign(values[name])

    @property
    def observed(self) -> Parameters:
        """The variables that are not trained, without the states of random number generators."""
        import tensorflow as tf

        kept = [each for each in self.model.non_trainable_variables if SEED not in each.path]
        return {name: tf.identity(each.value) for name, each in self._named(kept).items()}

    @observed.setter
    def observed(self, observed: Parameters) -> None:
        for name, each in self._named(self.model.non_trainable_variables).items():
            if name in observed:
                each.assign(observed[name])

    def call(self, values: Parameters, x: Array, training: bool) -> Array:
        """Outputs with the given parameters; no variable changes."""
        return self._called(values, x, training)[0]

    def _called(self, values: Parameters, x: Array, training: bool) -> tuple[Array, list[Any]]:
        """Outputs, and what the variables that are not trained would be afterwards."""
        import keras
        import tensorflow as tf

        trained = [values[name] for name in self._named(self.model.trainable_variables)]
        kept: list[Any] = []
        for place, each in enumerate(self.model.non_trainable_variables):
            if training and self._seed is not None and SEED in each.path:
                # Keras counts draws in the second number: far apart, so that no two layers draw the same.
                kept.append(tf.stack([tf.cast(self._seed, each.dtype), tf.constant(place << 16, each.dtype)]))
            else:
                kept.append(each.value)
        variables = [*self.model.trainable_variables, *self.model.non_trainable_variables]
        given = list(zip(variables, [*trained, *kept], strict=True))
        # What Keras' stateless_call does by the model's ``call``, which need not have an argument ``training``.
        with keras.StatelessScope(state_mapping=given, collect_losses=True) as scope:
            outputs = self.model(x, training=training)
            if self.model.losses:
                raise IncompatibleError(
                    "a KerasModel has no losses of its own: regularizers, activity regularizers or add_loss",
                    received=f"{len(self.model.losses)} in {self.model.name}",
                    works="take them out, and give the rule weight_decay or a sampler a prior",
                )
        return outputs, [scope.get_current_value(each) for each in self.model.non_trainable_variables]

    def within_bounds(self, parameters: Parameters) -> Parameters:
        """The parameters after the constraints of their variables, which Keras too applies after every update."""
        bounds = {name: each.constraint for name, each in self._named(self.model.trainable_variables).items()}
        return {
            name: value if (bound := bounds.get(name)) is None else bound(value) for name, value in parameters.items()
        }

    def observe(self, inputs: Array) -> None:
        """One pass in training mode, in which batch normalisation updates its moving mean and variance."""
        if self.observed:
            for each, value in zip(self.model.non_trainable_variables, self._observed_after(inputs), strict=True):
                if SEED not in each.path:
                    each.assign(value)

    @contextmanager
    def visiting(self, visit: Callable[[str, Array], Array], cut: bool = False) -> Iterator[None]:
        """Let ``visit`` replace the outputs of the layers that have trainable variables, in place of their ``call``."""
        import tensorflow as tf

        # Layers within layers too, of which Keras' public ``layers`` tells nothing.
        layers = [each for each in self.model._flatten_layers(include_self=False) if each.trainable_variables]
        replaced = [each for each in layers if not any(one.trainable_variables for one in each._layers)]
        covered = {id(one) for each in replaced for one in each.trainable_variables}
        left = [one.path for one in self.model.trainable_variables if id(one) not in covered]
        if left:
            raise IncompatibleError(
                "noise can be added to layers that have variables of their own or inner layers with some",
                received=f"both in the layer of {left[0]}",
                works="use weight_perturbation",
            )

        def instead(layer: Any) -> Callable[..., Any]:
            usual = layer.call

            def call(x: Any, *given: Any, **named: Any) -> Any:
                return visit(layer.path, usual(tf.stop_gradient(x) if cut else x, *given, **named))

            return call

        try:
            for each in replaced:
                each.__dict__["call"] = instead(each)
            yield
        finally:
            for each in replaced:
                each.__dict__.pop("call", None)

    def clone(self) -> Self:
        """The same model around a copy of the Keras model."""
        import keras

        twin = self._copied()
        twin.model = keras.models.clone_model(self.model)
        if self.inputs is not None and not twin.model.built:
            twin.model(np.zeros((1, *((3,) if self.sequence else ()), *self.inputs), self.dtype))
        if self.built:
            twin.model.set_weights(self.model.get_weights())
        return twin

    def __repr__(self) -> str:
        count = self.model.count_params() if self.built else "unbuilt"
        return f"KerasModel({self.model.name}, {count} parameters, {self.dtype})"
