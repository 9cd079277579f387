"""TorchModel: any torch.nn.Module, trained by the rules that need a loss and its gradient alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from neko_rules.backend import Array, Backend, Parameters
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.layers.adaptors.adaptor import Adaptor


class TorchModel(Adaptor):
    """A torch module as a model for BPTT, Manhattan, samplers and perturbation rules.

    The module stays the user's own: it holds the trained parameters at every moment, in the same Parameter objects,
    its modes (``train()``, ``eval()``) are left as they were, and it knows nothing of this wrapper. Parameters that do
    not require a gradient are left alone, and saved with the buffers.

    Args:
        module: the module; takes [batch, …feature], or [batch, time, feature] with ``sequence=True``.
        inputs: shape of one example; found at the first data if left out.
        sequence: whether it takes and returns sequences.
        backend: ``"torch"``, or a TorchBackend on another device.
        task_type, readout, dt: as for Adaptor.

    Raises:
        IncompatibleError: it is no module, or has no trainable parameters of one floating type.

    Example:
        >>> import numpy as np, torch
        >>> from neko_rules import BPTT, Evaluator, TorchModel
        >>> module = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> rule = BPTT(Evaluator(TorchModel(module)), optimizer={"name": "adam", "learning_rate": 0.05})
        >>> x = np.random.default_rng(0).normal(size=(64, 3))
        >>> losses = [rule.step(x, (x[:, 0] > 0).astype(int))["loss"] for _ in range(40)]
        >>> losses[-1] < 0.3 * losses[0]
        True
    """

    offers: ClassVar[tuple[str, ...]] = ("forward", "loss_gradient", "nodes")

    def __init__(
        self,
        module: Any,
        *,
        inputs: int | Sequence[int] | None = None,
        sequence: bool = False,
        backend: str | Backend = "torch",
        task_type: str = "classification",
        readout: str = "sequence",
        dt: float = 1e-3,
    ) -> None:
        import torch

        if not isinstance(module, torch.nn.Module):
            raise IncompatibleError("a TorchModel wraps a torch.nn.Module", received=module)
        self.module = module
        trained = [each for each in module.parameters() if each.requires_grad]
        types = {str(each.dtype).removeprefix("torch.") for each in trained}
        if len(types) != 1 or types <= {"float16", "bfloat16"}:
            raise IncompatibleError(
                "a TorchModel needs trainable parameters, all of float32 or all of float64",
                received=", ".join(sorted(types)) or "none",
            )
        self.dtype = types.pop()
        super().__init__(backend, inputs=inputs, sequence=sequence, task_type=task_type, readout=readout, dt=dt)
        if self.nx.name != "torch":
            raise ArgumentError("a TorchModel runs on the torch backend", received=self.nx.name)

    @property
    def values(self) -> Parameters:
        """The trainable parameters, sharing their memory with the module's."""
        return {name: each.detach() for name, each in self.module.named_parameters() if each.requires_grad}

    @values.setter
    def values(self, values: Parameters) -> None:
        for name, each in self.module.named_parameters():
            if name in values:
                # New memory, so that what was read before keeps its numbers.
                each.data = values[name].detach()

    @property
    def observed(self) -> Parameters:
        """The module's buffers, and the parameters that do not require a gradient."""
        import torch

        # NumPy, in whose arrays states and files are, has no bfloat16, and all of its numbers are in float32.
        return {
            name: each.detach().to(torch.float32 if each.dtype is torch.bfloat16 else each.dtype, copy=True)
            for name, each in self._kept().items()
        }

    @observed.setter
    def observed(self, observed: Parameters) -> None:
        import torch

        with torch.no_grad():
            for name, each in self._kept().items():
                each.copy_(observed[name])

    def _kept(self) -> dict[str, Any]:
        frozen = {name: each for name, each in self.module.named_parameters() if not each.requires_grad}
        return dict(self.module.named_buffers()) | frozen

    @property
    def observes(self) -> bool:
        """Whether the module has buffers."""
        return any(True for _ in self.module.buffers())

    def call(self, values: Parameters, x: Array, training: bool) -> Array:
        """Outputs with the given parameters; buffers and modes stay as they are."""
        from torch.func import functional_call

        instead = {id(each): values[name] for name, each in self.module.named_parameters() if name in values}
        if training:
            instead |= {id(each): each.clone() for each in self.module.buffers()}
        # Torch's own tie_weights swaps what a module used twice holds once for each of its names, and puts it back in
        # the same order, so that the first name's stand-in would stay in the user's module.
        held = {
            name: instead[id(each)]
            for prefix, part in self.module.named_modules()
            for found in (part.named_parameters, part.named_buffers)
            for name, each in found(prefix, recurse=False, remove_duplicate=False)
            if id(each) in instead
        }
        with self._mode(training):
            return functional_call(self.module, held, (x,), tie_weights=False)

    def observe(self, inputs: Array) -> None:
        """One pass in training mode, in which batch normalisation updates its running mean and variance."""
        import torch

        if not self.observes:
            return
        with torch.no_grad(), self._mode(training=True):
            self.module(self._swapped(inputs) if self.sequence else inputs[0])

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """The module in a mode, with dropout's random numbers from the seed, and everything put back afterwards."""
        import torch

        before = [(each, each.training) for each in self.module.modules()]
        state = torch.get_rng_state() if training else None
        try:
            self.module.train(training)
            if training:
                torch.default_generator.manual_seed(0 if self._seed is None else int(self._seed))
            yield
        finally:
            if state is not None:
                torch.set_rng_state(state)
            for each, mode in before:
                each.training = mode

    @contextmanager
    def visiting(self, visit: Callable[[str, Array], Array], cut: bool = False) -> Iterator[None]:
        """Let ``visit`` replace the outputs of the submodules that have trainable parameters, by forward hooks."""
        handles = []
        try:
            for name, each in self.module.named_modules():
                own = any(one.requires_grad for one in each.parameters(recurse=False))
                below = any(one.requires_grad for child in each.children() for one in child.parameters())
                if own and below:
                    raise IncompatibleError(
                        "noise can be added to modules that have parameters of their own or submodules with some",
                        received=f"both in {name or type(each).__name__}",
                        works="use weight_perturbation",
                    )
                if own:
                    handles.append(each.register_forward_hook(lambda _m, _x, out, name=name: visit(name, out)))
                if own and cut:
                    handles.append(each.register_forward_pre_hook(lambda _m, given: tuple(x.detach() for x in given)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _axes(self, name: str) -> int:
        # Asked for every parameter in every step, for which all of them would be read each time.
        return int(self.module.get_parameter(name).ndim)

    def fan_in(self, name: str) -> int:
        """How many inputs a weight sums over: torch has them on all axes but the first; 1 for a vector."""
        shape = tuple(self.values[name].shape)
        return math.prod(shape[1:]) if len(shape) > 1 else 1

    def clone(self) -> Self:
        """The same model around a copy of the module."""
        twin = self._copied()
        twin.module = copy.deepcopy(self.module)
        return twin

    def __repr__(self) -> str:
        count = sum(each.numel() for each in self.module.parameters() if each.requires_grad)
        return f"TorchModel({type(self.module).__name__}, {count} parameters, {self.dtype})"
