"""Linking of windows with traces of which one state differs from synapse to synapse, as that of an adaptive threshold.

What of the traces ε_T and ē_T after T time steps comes from every input, and from the traces before, is what the way
back makes of a signal that picks a state of the last time step, or of the powers of the leak above at all of them:

    ε_T = P ε_0 + Σ_t x_t c_t                ē_T = κ^T ē_0 + Q ε_0 + Σ_t x_t χ_t             [batch, pre, post]

with P, Q [batch, state, post] and c, χ [time, batch, post]; the gradient of the steps between meets ε_0 likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from neko_rules.credit.spans import Wide
from neko_rules.kernels import filtering, grouped
from neko_rules.layers.forward import Z
from neko_rules.layers.graph import bias_name
from neko_rules.rules.linking_window import LinkingWindow


class LinkingSynapses(LinkingWindow):
    """Writes the chain of windows with such traces; as ``LinkingWindow``."""

    @cached_property
    def _wide(self) -> dict[str, Wide]:
        """The populations that have them."""
        return dict(self._window.wide)

    def _carries_wanted(self, name: str) -> bool:
        return name in self._wide

    def _of_first_of(self, parameter: str, size: str, name: str, delta: str) -> None:
        if name not in self._wide:
            super()._of_first_of(parameter, size, name, delta)
            return
        arrives = self._arrives(parameter, name, size)
        if arrives is not None:
            self._add_met(parameter, size, name, arrives, delta)
        coefficients = self._coefficients(name, self.carries[name], self.numbers[name])
        if narrow := self._wide[name].narrow:
            self._add_met(parameter, size, name, self._trace(parameter, size), coefficients[narrow])

    def _take_on(self, name: str, state: str) -> None:
        if name in self._wide:
            self._carry_on(name, bool(state))
            if not self._wide[name].narrow:
                return
        super()._take_on(name, "" if name in self._wide else state)

    def _carry_on(self, name: str, filtered: bool) -> None:
        """Take on what differs from synapse to synapse, and what is filtered by what is above."""
        chain, number, wide = self.chain, self.numbers[name], self._wide[name]
        met = self._coefficients(name, self.carries[name], number)[wide.state]
        back = [self._pulled(name, wide.state, "last", f"{number}w")]
        back += [self._pulled(name, Z, "filter", f"{number}f")] if filtered else []
        factors = [factor for factor, _ in back]
        by_wide = [each[wide.state] for _, each in back]
        by_vector = [each.get(wide.narrow, self._at_rest(name)) for _, each in back]
        kappa = [*self._met_first(name), self._of_trace("decay", name, 0)] if filtered else []
        for connection in self.graph.into(name):
            pre = self._size(connection.source)
            self._carry_on_one(
                connection.weight,
                pre,
                name,
                self._events(connection, *factors),
                factors,
                (met, by_vector, by_wide),
                kappa,
            )
        if self.graph.populations[name].bias:
            index = chain.room("always", "steps", "n", 1, kind="narrow")
            count = chain.room("one", "steps", "n", kind="count")
            chain.call(grouped.list_constant, index, count)
            of = [index, count, chain.room("nothing", 0, 0, 0), "true"], factors
            self._carry_on_one(bias_name(name), "1", name, of, factors, (met, by_vector, by_wide), kappa)
        self._emit(name, wide)

    def _carry_on_one(
        self,
        parameter: str,
        pre: str,
        name: str,
        events: tuple[list[str], list[str]],
        factors: list[str],
        coefficients: tuple[str, list[str], list[str]],
        filtered: list[str],
    ) -> None:
        """The same of one parameter.

        Args:
            parameter: its name.
            pre: how many neurons send.
            name: of the population.
            events: what they send, and what of ``factors`` that meets.
            factors: what of the traces comes from every input.
            coefficients: what the wide state meets, and what of the traces comes from the narrow and from the wide one.
            filtered: κ, what filtered traces meet, and κ^T; empty without those.
        """
        chain, post = self.chain, self._size(name)
        (of, met_by), (met, by_vector, by_wide) = events, coefficients
        if self._wide[name].narrow:
            vector = chain.view(self._trace(parameter, pre)[0], "n", pre, skip=f"begin * {pre}")
        else:
            vector = f"none_{pre}"
            if not chain.has(vector):
                chain.room(vector, "n", 1 if pre == "1" else pre, once=True)
                chain.call(grouped.clear, vector, once=True)
        arrives = self._arrives(parameter, name, pre)
        sent = vector if arrives is None else chain.view(arrives[0], "n", pre, skip=arrives[1])
        first = [chain.view(each, "n", post) for each in factors]
        given = ["zero", "n", self._begun(), self._kept(), vector, sent, "false" if arrives is None else "true", *of]
        given += [chain.part(self._of_trace("wide", parameter, 3), pre, post), met, by_vector[0], by_wide[0]]
        given += [first[0], met_by[0]]
        if filtered:
            kappa, signal, decay = filtered
            given += [chain.part(self._of_trace("filtered", parameter, 3), pre, post), kappa, signal, decay]
            given += [by_vector[1], by_wide[1], first[1], met_by[1]]
        gradient = self._gradient(parameter, 1 if pre == "1" else 2)
        given.append(chain.view(gradient, "1", post) if pre == "1" else gradient)
        chain.call(filtering.meet_and_carry_filtered if filtered else filtering.meet_and_carry, *given)

    def _pulled(self, name: str, key: str, what: str, mark: str) -> tuple[str, dict[str, str]]:
        """What of a sum over time steps of a population's states, or of its emissions, comes from what went before.

        Args:
            name: of the population.
            key: the state, or ``Z``.
            what: how much of it every time step has in the sum.
            mark: what rooms are told apart by.

        Returns:
            Its derivative by the input of every time step, [time, example, neuron], and by states before the first.
        """
        chain, size = self.chain, self._size(name)
        signal = chain.room(f"picked{mark}", "steps", "n", size)
        chain.call(grouped.spread_steps, self._of_trace(what, name, 1), signal)
        went = self._went_back((name,), {(name, key): signal}, mark)[name]
        return went.errors[0], self._coefficients(name, went.carries, mark)

    def _coefficients(self, name: str, carries: Mapping[tuple[str, str], str], mark: str) -> dict[str, str]:
        """By state, what a loop back hands to the trace before the first time step, [example, neuron].

        That of the state itself, and of what it emitted then, which acts on states in the first step.
        """
        chain, wide, found = self.chain, self._wide[name], {}
        for state in filter(None, (wide.narrow, wide.state)):
            own, emission = carries.get(("state", state), self._at_rest(name)), carries.get((Z, ""))
            found[state] = own
            if emission is not None and state in wide.emitting:
                into = found[state] = f"met{mark}_{state}"
                if not chain.has(into):
                    chain.room(into, "n", self._size(name))
                    before = chain.part(self._of_trace("emitted", f"{name} {state}", 2), self._size(name))
                    chain.call(grouped.add_product, own, before, emission, into)
        return found

    def _emit(self, name: str, wide: Wide) -> None:
        """∂z/∂s of the last time step, which acts on traces in the next."""
        if wide.emitting:
            size = self._size(name)
            last = f"(steps - 1) * n * {size}"
            into = [self._of_trace("emitted_after", f"{name} {state}", 2) for state in wide.emitting]
            flat = [self.chain.view(each, f"n * {size}", skip=f"begin * {size}") for each in into]
            self._sensitivities(name, wide.emitting, f"n * {size}", last, flat)
