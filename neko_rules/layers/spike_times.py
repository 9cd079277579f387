"""Spike times: local derivatives by which an error moves a spike in time, with no surrogate for its presence.

A neuron fires where u crosses zero. Pushed by δu it crosses earlier, by δu over the speed of the crossing, so that in
the place of ψ(u_t) stands

    z_t/Δu_t,    Δu_t = u(s_t) - u(s_{t-1} + j z_{t-1})        the rise of u in a time step, its last reset taken off

and an error meets it by what changes if the spike comes one time step later. To its own neuron's state a spike adds
j = s_t(z_{t-1} = 1) - s_t(z_{t-1} = 0), with nothing detached. One that comes a step later finds the state as it went
on without it, and adds to that, where of a jump that came in time D j would be left. In the place of r stands the
difference,

    c_t = D j - j(s_{t-1} ← s_t - j z_{t-1}),        D at z_{t-1} = 0

which is of the order of dt, whatever a step later another spike does. For a leak, any reset and any adaptation this is
the jump of the adjoint at an event, up to O(dt).

References: T. C. Wunderlich, C. Pehle, Event-based backpropagation can compute exact gradients for spiking neural
networks, Scientific Reports 11:12829, 2021; on jumps of any kind, P. C. Müller, Calculation of Lyapunov exponents for
dynamic systems with discontinuities, Chaos, Solitons & Fractals 5:1671, 1995.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from neko_rules.errors import IncompatibleError
from neko_rules.layers.jacobians import PREVIOUS, Entry, Symbolic, attached, symbolic_functions, symbols


def in_time(symbolic: Symbolic, slowest: float) -> Symbolic:
    """The derivatives of a cell whose spikes move in time.

    Args:
        symbolic: those with a surrogate.
        slowest: the slowest crossing, in thresholds per time step, that counts as what it is.

    Raises:
        IncompatibleError: the neuron spikes within its update, or its output is no single spike.
    """
    import sympy

    after, emitted = {name: attached(value) for name, value in symbolic.after.items()}, attached(symbolic.emitted)
    u = _crossing(after.values(), emitted)
    before, now = symbols(symbolic.states, PREVIOUS), symbols(symbolic.states)
    learnable, (z, current) = symbols(symbolic.learnable), symbols((PREVIOUS + "z", "current")).values()
    jumps = {name: sympy.simplify(value.subs(z, 1) - value.subs(z, 0)) for name, value in after.items()}
    rise = u - u.subs({now[name]: before[name] + jumps[name] * z for name in now}, simultaneous=True)
    choice, maximum = (symbolic_functions()[name] for name in ("Choice", "Maximum"))
    one, zero = sympy.Integer(1), sympy.Integer(0)
    moved = choice(u, one, zero) * choice(rise, one, zero) / maximum(rise, sympy.Float(slowest))

    def derivative(of: Any, by: Any) -> Any:
        return sympy.diff(of, by).replace(sympy.Function("SpikeDerivative"), lambda u: moved)

    felt = _felt(after, emitted, before, now)
    later = {
        name: jumps[name].subs({before[k]: now[k] - jumps[k] * z for k in now}, simultaneous=True) for name in felt
    }
    entries: dict[Entry, Any] = {}
    for name in felt:
        of_states = {other: derivative(after[name], before[other]) for other in felt}
        entries.update({("D", name, other): value for other, value in of_states.items()})
        kept = sum((value.subs(z, 0) * jumps[other] for other, value in of_states.items()), zero)
        entries["r", name] = sympy.simplify(kept - later[name])
        entries["q", name] = derivative(after[name], current)
        entries["h", name] = derivative(emitted, now[name])
        entries.update({("c", name, c): derivative(after[name], by) for c, by in learnable.items()})
    entries.update({("c", "z", c): derivative(emitted, by) for c, by in learnable.items()})
    return symbolic._replace(entries={entry: value for entry, value in entries.items() if value != 0}, spikes=0)


def _crossing(after: Iterable[Any], emitted: Any) -> Any:
    """What crosses zero at the one spike that an output is, or is while the neuron is ready."""
    import sympy

    spike, mark = symbolic_functions()["Spike"], sympy.Symbol("spike")
    found = emitted.atoms(spike)
    within = set().union(*(each.atoms(spike) for each in after))
    marked = emitted.subs(dict.fromkeys(found, mark))
    if within or len(found) != 1 or marked.subs(mark, 0) != 0 or sympy.diff(marked, mark, 2) != 0:
        raise IncompatibleError(
            "the time of a spike can be moved where a neuron sends spikes, and makes them of its state alone",
            received=f"z = {emitted}" + (f", with {len(within)} spikes within the update" if within else ""),
            works="use BPTT, whose surrogate stands for the derivative of any spike",
        )
    return next(iter(found)).args[0]


def _felt(after: dict[str, Any], emitted: Any, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The states that an output feels, now or later: a count of refractory steps has no derivative that it would."""
    import sympy

    felt = {name for name in now if sympy.diff(emitted, now[name]) != 0}
    while True:
        more = {k for k in now if k not in felt and any(sympy.diff(after[name], before[k]) != 0 for name in felt)}
        if not more:
            return [name for name in now if name in felt]
        felt |= more
