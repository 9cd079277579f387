"""Transforms: the nodes of NIR without a state, and what several of them one after the other do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from neko_rules.errors import DataError, IncompatibleError, NekoError
from neko_rules.layers.average_pooling import AveragePooling
from neko_rules.layers.convolution import Convolution
from neko_rules.nir.maps import LinearMap

TRANSFORMS = ("Linear", "Affine", "Conv2d", "AvgPool2d", "Scale", "Flatten", "Delay")
"""The nodes that are folded into weights; beside them Input and Output of graphs within, which change nothing."""

NEARLY = 1e-4
"""Part of a step by which a delay may miss it, as in single precision."""


class Transforms:
    """What lies between populations.

    Args:
        nodes: all nodes by name.
        kinds: the names of their classes.
        into: name → (place of the edge, source).
        first: the name of the input of the whole.
        dt: seconds of a time step.
    """

    def __init__(
        self,
        nodes: dict[str, Any],
        kinds: dict[str, str],
        into: dict[str, list[tuple[int, str]]],
        first: str,
        dt: float,
    ) -> None:
        self.nodes, self.kinds, self.into, self.first, self.dt = nodes, kinds, into, first, dt

    # Shapes.

    def size(self, name: str) -> int:
        """How many values come out of a node."""
        return math.prod(self.shape(name))

    def shape(self, name: str, on_the_way: frozenset[str] = frozenset()) -> tuple[int, ...]:
        """The shape of what comes out of a node: its own, or for a single value per layer that of what comes in.

        Raises:
            DataError: nothing says it.
        """
        found = self._own_shape(name)
        if found is None or (math.prod(found) == 1 and self.kinds[name] not in ("Input", "Linear", "Affine")):
            for _, source in self.into[name]:
                if source in on_the_way:
                    continue
                try:
                    before = self.shape(source, on_the_way | {name})
                except DataError:
                    continue
                return self._shape_after(name, before)
        if found is None:
            raise DataError("the shapes of a graph must be known", received=f"that of {name!r} is not")
        return found

    def _own_shape(self, name: str) -> tuple[int, ...] | None:
        node, kind = self.nodes[name], self.kinds[name]
        if kind in ("Linear", "Affine"):
            return (self._matrix(name).shape[1],)
        if kind == "Input" and name == self.first:
            given = node.input_type.get("input")
            return None if given is None else tuple(int(each) for each in np.reshape(given, -1))
        field = {"Scale": "scale", "Delay": "delay", "Threshold": "threshold"}.get(kind, "r")
        value = getattr(node, field, None)
        return None if value is None else np.shape(value)

    def _shape_after(self, name: str, before: tuple[int, ...]) -> tuple[int, ...]:
        kind, node = self.kinds[name], self.nodes[name]
        if kind == "Conv2d":
            found, _ = self._convolution(name, before)
            return (found.filters, *found.places)
        if kind == "AvgPool2d":
            pooling = self._pooling(name, before)
            return (pooling.channels, *pooling.places)
        if kind != "Flatten":
            return before
        start, end = (int(each) % max(1, len(before)) for each in (node.start_dim, node.end_dim))
        return (*before[:start], math.prod(before[start : end + 1]), *before[end + 1 :])

    # What the nodes of a path do.

    def changes(self, between: tuple[str, ...]) -> bool:
        """Whether a path does anything but put values into another shape."""
        return any(self.kinds[name] not in ("Flatten", "Input", "Output") for name in between)

    def steps(self, between: tuple[str, ...]) -> int:
        """By how many time steps a path delays: 0 or 1.

        Raises:
            IncompatibleError: it is another number, or not the same for all neurons.
        """
        total = 0
        for name in between:
            if self.kinds[name] != "Delay":
                continue
            steps = np.asarray(self.nodes[name].delay, np.float64).reshape(-1) / self.dt
            whole = float(np.round(steps[0])) if np.isfinite(steps).all() else math.nan
            if not (np.abs(steps - whole) < NEARLY).all() or not 0 <= whole + total <= 1:
                raise IncompatibleError(
                    f"a Delay is 0 or one time step of {self.dt:g} s for all neurons, not so {name!r}",
                    received=f"from {steps.min() * self.dt:g} to {steps.max() * self.dt:g} s",
                    works="take a dt as long as the delay",
                )
            total += int(whole)
        return total

    def folded(self, source: str, between: tuple[str, ...]) -> LinearMap:
        """What a path does, without its biases.

        Raises:
            DataError: a node takes another number of values than come in.
        """
        found = LinearMap.identity(self.shape(source))
        for name in between:
            try:
                found = self._after(name, found)
            except DataError as error:
                raise DataError(f"in {self.kinds[name]} {name!r}: {error}") from error
        return found

    def _after(self, name: str, before: LinearMap) -> LinearMap:
        kind = self.kinds[name]
        if kind in ("Linear", "Affine"):
            if len(before.shape) > 1:
                raise DataError("a matrix takes flat values", received=before.shape, works="put a Flatten before it")
            return before.times(self._matrix(name))
        if kind == "Conv2d":
            return before.convolved(*self._convolution(name, before.shape))
        if kind == "AvgPool2d":
            return before.pooled(self._pooling(name, before.shape))
        if kind == "Scale":
            factors = np.asarray(self.nodes[name].scale, np.float64).reshape(-1)
            if factors.size not in (1, before.size):
                raise DataError(f"{factors.size} factors take as many values", received=f"{before.size} of them")
            return before.scaled(np.broadcast_to(factors, before.size))
        return before.reshaped(self._shape_after(name, before.shape))

    def bias(self, name: str) -> np.ndarray | None:
        """What comes into a node of all constants before it; None where there are none.

        Raises:
            IncompatibleError: a constant goes through a Delay, before which it is not there yet.
        """
        found: np.ndarray | None = None
        for _, source in self.into[name]:
            sent = self._sent(source)
            if sent is not None:
                found = sent if found is None else found + sent
        return found

    def _sent(self, name: str) -> np.ndarray | None:
        """The constant part of what a transform sends; a population sends none."""
        kind = self.kinds[name]
        if kind not in (*TRANSFORMS, "Output", "Input") or name == self.first:
            return None
        before = self.bias(name)
        if kind == "Delay" and before is not None and before.any() and self.steps((name,)):
            raise IncompatibleError("a Delay stands before a bias and not behind it", received=name)
        if before is not None:
            whole = LinearMap((len(before),), weights=before[None]).reshaped(self._incoming(name))
            before = self._after(name, whole).matrix()[0]
        own = self._own_bias(name)
        if own is None or before is None:
            return before if own is None else own
        return own + before

    def _own_bias(self, name: str) -> np.ndarray | None:
        """The constant that a node adds, one value for each that comes out.

        Raises:
            DataError: it has another number of values.
        """
        node, kind = self.nodes[name], self.kinds[name]
        if kind not in ("Affine", "Conv2d"):
            return None
        own, shape = np.asarray(node.bias, np.float64).reshape(-1), self.shape(name)
        if own.size != shape[0]:
            raise DataError(
                f"the bias of {kind} {name!r} needs {shape[0]} values, as its weights have", received=f"{own.size}"
            )
        # Of a convolution it is always there: zeros may stand for none.
        return np.repeat(own, math.prod(shape[1:])) if kind == "Affine" or own.any() else None

    def _incoming(self, name: str) -> tuple[int, ...]:
        return self.shape(self.into[name][0][1])

    # Single nodes.

    def _matrix(self, name: str) -> np.ndarray:
        """Weights [source, target]."""
        weight = np.asarray(self.nodes[name].weight, np.float64)
        if weight.ndim != 2:
            raise IncompatibleError(
                f"weights are a matrix, not so those of {self.kinds[name]} {name!r}", received=f"shape {weight.shape}"
            )
        return weight.T

    def _convolution(self, name: str, before: tuple[int, ...]) -> tuple[Convolution, np.ndarray]:
        """A convolution on pictures of a shape, and its weights [channels · rows · columns, filters]."""
        node = self.nodes[name]
        kernel = np.asarray(node.weight, np.float64)
        if kernel.ndim != 4 or len(before) != 3:
            raise DataError(
                f"Conv2d {name!r} takes pictures [channel, row, column] and weights of four axes",
                received=f"shapes {before} and {kernel.shape}",
            )
        filters, channels, *window = kernel.shape
        groups = int(np.asarray(node.groups))
        dilation = np.reshape(node.dilation, -1)
        for what, wrong in (("groups", groups != 1), ("dilation", bool((dilation != 1).any()))):
            if wrong:
                given = groups if what == "groups" else dilation.tolist()
                raise IncompatibleError(f"a convolution here has no {what}, as Conv2d {name!r} has", received=given)
        if channels != before[0]:
            raise DataError(f"Conv2d {name!r} takes {channels} channels", received=f"{before[0]} of them")
        stride = _pair(node.stride)
        try:
            found = Convolution(before[1:], filters, window, stride, channels, self._padding(name, window, stride))
        except NekoError as error:
            raise IncompatibleError(f"Conv2d {name!r}: {error}") from error
        return found, kernel.reshape(filters, -1).T

    def _pooling(self, name: str, before: tuple[int, ...]) -> AveragePooling:
        """Average pooling of pictures of a shape."""
        node = self.nodes[name]
        if len(before) != 3:
            raise DataError(f"AvgPool2d {name!r} takes pictures [channel, row, column]", received=f"shape {before}")
        pool, stride, padding = (_pair(each) for each in (node.kernel_size, node.stride, node.padding))
        if stride != pool or padding != (0, 0):
            raise IncompatibleError(
                f"average pooling here is of patches side by side, without padding, not so AvgPool2d {name!r}",
                received=f"kernel_size {pool}, stride {stride}, padding {padding}",
            )
        try:
            return AveragePooling(before[1:], pool, before[0])
        except NekoError as error:
            raise IncompatibleError(f"AvgPool2d {name!r}: {error}") from error

    def _padding(self, name: str, window: list[int], stride: tuple[int, int]) -> tuple[int, int]:
        given = self.nodes[name].padding
        given = given.decode() if isinstance(given, bytes) else given
        if not isinstance(given, str):
            return _pair(given)
        if given == "valid":
            return (0, 0)
        if stride != (1, 1) or any(each % 2 == 0 for each in window):
            raise IncompatibleError(
                f"padding 'same' is that of a window of odd sides with stride 1, not so of Conv2d {name!r}",
                received=f"window {tuple(window)}, stride {stride}",
            )
        return window[0] // 2, window[1] // 2


def _pair(given: Any) -> tuple[int, int]:
    both = np.broadcast_to(np.reshape(given, -1), 2)
    return int(both[0]), int(both[1])
