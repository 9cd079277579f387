"""PyTorch backend: eager, on the CPU or a GPU, with one thread for the small matrices of a step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from neko_rules.backend import Array, Arrays, Parameters, ScanBody
from neko_rules.errors import BackendError


class TorchBackend:
    """PyTorch, run eagerly.

    Args:
        device: where arrays live, in PyTorch's own spelling (``"cpu"``, ``"cuda"``).
        threads: CPU threads inside a compiled function. Stepping through time multiplies small matrices, for which a
            second thread on two cores was measured to be 30 to 130 times slower than none. PyTorch's own setting is
            put back afterwards.

    Example:
        >>> nx = TorchBackend()
        >>> value, gradient = nx.value_and_grad(lambda p: nx.sum(p["w"] ** 2))({"w": nx.asarray([1.0, 2.0])})
        >>> value.item(), gradient["w"].tolist()
        (5.0, [2.0, 4.0])
    """

    name = "torch"
    description = "PyTorch, eager, on the CPU or a GPU"
    differentiates = True

    def __init__(self, device: str = "cpu", threads: int = 1) -> None:
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise BackendError(
                "device must be one that this PyTorch can use here",
                received=f"{device!r}, of which PyTorch says: {str(error).splitlines()[0]}",
                works="use device='cpu', or install a driver and a build of PyTorch for that device",
            ) from error
        self.threads = threads

    @property
    def in_host_memory(self) -> bool:
        # While PyTorch records for a gradient, nothing may happen behind its back. Whoever changes an operation in a
        # subclass wants to see it used, not passed by.
        return type(self) is TorchBackend and self.device.type == "cpu" and not torch.is_grad_enabled()

    @property
    def on_processor(self) -> bool:
        """Whether NumPy's loops may take whole steps in its place, for which no tensor has to be made of anything."""
        return type(self) is TorchBackend and self.device.type == "cpu"

    @property
    def in_gpu_memory(self) -> bool:
        """Whether Triton kernels may work on the arrays."""
        return type(self) is TorchBackend and self.device.type == "cuda" and not torch.is_grad_enabled()

    def host(self, array: Array) -> np.ndarray:
        return (array.detach() if array.requires_grad else array).numpy()

    def from_host(self, array: np.ndarray) -> Array:
        return torch.from_numpy(array)

    def asarray(self, value: Any, dtype: str | None = None) -> Array:
        if not isinstance(value, torch.Tensor):
            # Memory is shared where PyTorch can, which needs C order and, to pass without a warning, write access.
            value = torch.from_numpy(np.require(value, dtype, ["C_CONTIGUOUS", "WRITEABLE", "ENSUREARRAY"]))
        return value.to(self.device, None if dtype is None else getattr(torch, dtype))

    def given(self, value: np.ndarray, dtype: str | None = None) -> Array:
        """What a compiled function takes in the place of an array; see ``neko_rules.backend.given``."""
        # A batch that was turned is a view of memory in C order: PyTorch takes it as it lies.
        if dtype is None and value.ndim == 3 and value.transpose(1, 0, 2).flags.carray:
            return torch.from_numpy(value).to(self.device)
        return self.asarray(value, dtype)

    def to_numpy(self, array: Array) -> np.ndarray:
        return np.array(array.detach().cpu().numpy())

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor)

    def astype(self, array: Array, dtype: str) -> Array:
        return array.to(getattr(torch, dtype))

    def dtype(self, array: Array) -> str:
        return str(array.dtype).removeprefix("torch.")

    def full(self, shape: Sequence[int], value: float, dtype: str) -> Array:
        return torch.full(tuple(shape), value, dtype=getattr(torch, dtype), device=self.device)

    def eye(self, size: int, dtype: str) -> Array:
        return torch.eye(size, dtype=getattr(torch, dtype), device=self.device)

    def arange(self, size: int, dtype: str) -> Array:
        return torch.arange(size, dtype=getattr(torch, dtype), device=self.device)

    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        return torch.reshape(array, tuple(shape))

    def broadcast_to(self, array: Array, shape: Sequence[int]) -> Array:
        return torch.broadcast_to(array, tuple(shape))

    def transpose(self, array: Array, axes: Sequence[int]) -> Array:
        return torch.permute(array, tuple(axes))

    def expand_dims(self, array: Array, axis: int) -> Array:
        return torch.unsqueeze(array, axis)

    def concat(self, arrays: Sequence[Array], axis: int) -> Array:
        return torch.cat(list(arrays), dim=axis)

    def stack(self, arrays: Sequence[Array], axis: int) -> Array:
        return torch.stack(list(arrays), dim=axis)

    def take(self, array: Array, indices: Array, axis: int) -> Array:
        return torch.index_select(array, axis, indices)

    where = staticmethod(torch.where)
    matmul = staticmethod(torch.matmul)
    einsum = staticmethod(torch.einsum)
    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)
    sqrt = staticmethod(torch.sqrt)
    tanh = staticmethod(torch.tanh)
    sigmoid = staticmethod(torch.sigmoid)
    abs = staticmethod(torch.abs)
    sign = staticmethod(torch.sign)
    floor = staticmethod(torch.floor)
    isfinite = staticmethod(torch.isfinite)
    stop_gradient = staticmethod(torch.detach)

    def heaviside(self, array: Array) -> Array:
        # Comparing into a float tensor takes a seventh of the time of comparing and then converting.
        array = array.detach()
        return torch.gt(array, 0, out=torch.empty_like(array))

    def softplus(self, array: Array) -> Array:
        # torch.nn.functional.softplus returns its argument above 20, which is off by 2e-9 there.
        return torch.logaddexp(array, array.new_zeros(()))

    def maximum(self, left: Array, right: Array | float) -> Array:
        # A number is clamped to: torch.maximum would make it a tensor and broadcast that, which takes twice as long.
        return torch.maximum(left, right) if isinstance(right, torch.Tensor) else torch.clamp(left, min=right)

    def minimum(self, left: Array, right: Array | float) -> Array:
        return torch.minimum(left, right) if isinstance(right, torch.Tensor) else torch.clamp(left, max=right)

    def sum(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return torch.sum(array, dim=_axes(array, axis), keepdim=keepdims)

    def mean(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return torch.mean(array, dim=_axes(array, axis), keepdim=keepdims)

    def max(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return torch.amax(array, dim=_axes(array, axis), keepdim=keepdims)

    def any(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return torch.any(array, dim=_axes(array, axis), keepdim=keepdims)

    def all(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return torch.all(array, dim=_axes(array, axis), keepdim=keepdims)

    def argmax(self, array: Array, axis: int) -> Array:
        return torch.argmax(array, dim=axis)

    def value_and_grad(
        self, function: Callable[[Parameters], Array]
    ) -> Callable[[Parameters], tuple[Array, Parameters]]:
        def differentiated(parameters: Parameters) -> tuple[Array, Parameters]:
            with torch.enable_grad():
                leaves = {name: array.detach().requires_grad_() for name, array in parameters.items()}
                value = function(leaves)
            gradients: Sequence[Array | None] = [None] * len(leaves)
            if leaves and value.requires_grad:
                gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            return value.detach(), {
                name: torch.zeros_like(leaf, requires_grad=False) if gradient is None else gradient
                for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
            }

        return differentiated

    def scan(
        self, body: ScanBody, carry: Arrays, inputs: Arrays, length: int, reverse: bool = False
    ) -> tuple[Arrays, Arrays]:
        # Unbound once: differentiating array[t] would make a zero tensor of the whole array's size at every step.
        steps = list(zip(*(torch.unbind(array) for array in inputs), strict=True)) if inputs else [()] * length
        history = []
        for step in reversed(steps) if reverse else steps:
            carry, outputs = body(carry, step)
            history.append(outputs)
        if reverse:
            history.reverse()
        return carry, tuple(torch.stack(record) for record in zip(*history, strict=True))

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as it is, without gradients and with ``threads`` CPU threads."""

        @functools.wraps(function)
        def run(*arguments: Any, **named: Any) -> Any:
            threads = torch.get_num_threads()
            limited = self.device.type == "cpu" and threads != self.threads
            try:
                if limited:
                    torch.set_num_threads(self.threads)
                with torch.no_grad():
                    return function(*arguments, **named)
            finally:
                if limited:
                    torch.set_num_threads(threads)

        return run


def _axes(array: Array, axis: Any) -> tuple[int, ...]:
    """The axes as PyTorch wants them: it has no ``None`` together with ``keepdim`` and no ``None`` for ``amax``."""
    if axis is None:
        return tuple(range(array.ndim))
    return axis if isinstance(axis, tuple) else (axis,)
