"""Portable: models and rules as another process can read them, whatever library their arrays are of."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from neko_rules.on_request import own_state
from neko_rules.trees import OnHost, made, mapped


class Portable:
    """Pickled without what is made on request, with NumPy's arrays in the place of a backend's; copied as it is.

    A library may read its own arrays in another precision: JAX has doubles only where somebody asked for them.

    Example:
        >>> import pickle
        >>> import numpy as np
        >>> from neko_rules import BPTT, LIF, Evaluator
        >>> rule, x, y = BPTT(Evaluator(LIF(8, 2))), np.ones((4, 5, 3)), np.array([0, 1, 0, 1])
        >>> before = rule.step(x, y)
        >>> pickle.loads(pickle.dumps(rule)).step(x, y) == rule.step(x, y)
        True
    """

    arrays: ClassVar[tuple[str, ...]] = ()
    """The attributes that hold trees of a backend's arrays."""

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        state, nx = own_state(self), self.nx  # type: ignore[attr-defined]
        for name in self.arrays:
            if nx.name != "numpy" and state[name] is not None:
                state[name] = OnHost(mapped(nx.to_numpy, made(nx, state[name])))
        return state
