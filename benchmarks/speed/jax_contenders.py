"""Contenders on JAX: a compiled scan that one writes by hand, and the libraries built on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from neko_rules.experiments import workloads
from neko_rules.experiments.workloads import ALPHA, BETA, KAPPA, RHO, Workload

Array = Any
Parameters = dict[str, Array]


class JaxContender:
    """A compiled training step on the workload's batch.

    Args:
        workload: the task.
        state: whatever the step carries on.
        train: state, inputs [batch, time, feature] and labels to the next state and the loss; compiled by the caller.
        spikes: state and inputs to the spikes of each hidden layer.
    """

    def __init__(
        self,
        workload: Workload,
        state: Any,
        train: Callable[[Any, Array, Array], tuple[Any, Array]],
        spikes: Callable[[Any, Array], list[Array]],
    ) -> None:
        self.x, self.y = workload.data()
        self.state, self.train, self.spikes = state, train, spikes

    def step(self) -> float:
        self.state, loss = self.train(self.state, jnp.asarray(self.x), jnp.asarray(self.y))
        return float(loss)

    def rates(self) -> list[float]:
        return [float(each.mean()) for each in self.spikes(self.state, jnp.asarray(self.x[:8]))]


def spike_with(derivative: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Heaviside, with another function for its derivative."""
    spike = jax.custom_jvp(lambda u: (u > 0).astype(u.dtype))
    spike.defjvp(lambda primals, tangents: (spike(*primals), derivative(*primals) * tangents[0]))
    return spike


SPIKES = {
    "triangular": spike_with(lambda u: workloads.TRIANGULAR_PEAK * jnp.maximum(1 - jnp.abs(u), 0)),
    "fast_sigmoid": spike_with(lambda u: 1 / (1 + workloads.FAST_SIGMOID_SLOPE * jnp.abs(u)) ** 2),
}


def cross_entropy(logits: Array, y: Array) -> Array:
    """Mean over time steps and batch of the softmax cross-entropy of logits [time, batch, class]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.broadcast_to(y, logits.shape[:2])).mean()


def leaky(currents: Array) -> Array:
    """The leaky readout over [time, batch, class]."""

    def body(y: Array, current: Array) -> tuple[Array, Array]:
        y = KAPPA * y + current
        return y, y

    return jax.lax.scan(body, jnp.zeros_like(currents[0]), currents)[1]


def first_parameters(workload: Workload) -> Parameters:
    """The workload's weights, and biases of zero."""
    weights = {name: jnp.asarray(value) for name, value in workload.weights().items()}
    biases = {f"{n} bias": jnp.zeros(w.shape[1]) for n, w in weights.items() if not n.startswith("recurrent")}
    return {**weights, **biases}


# By hand.


def neurons(workload: Workload, currents: Array, recurrent: Array | None, detached: bool) -> Array:
    """LIF or ALIF neurons over currents [time, batch, neuron]: their spikes."""
    spike = SPIKES[workload.surrogate]
    beta = BETA if workload.cell == "alif" else 0.0

    def body(carry: Any, current: Array) -> Any:
        v, a, z = carry
        v = ALPHA * v + current - jax.lax.stop_gradient(z)
        if recurrent is not None:
            v = v + (jax.lax.stop_gradient(z) if detached else z) @ recurrent
        if beta:
            a = RHO * a + z
        z = spike(v - 1 - beta * a)
        return (v, a, z), z

    rest = jnp.zeros_like(currents[0])
    return jax.lax.scan(body, (rest, rest, rest), currents)[1]


def forward(workload: Workload, p: Parameters, x: Array, detached: bool = False) -> tuple[Array, list[Array]]:
    """Logits and hidden spikes, one layer after the other: products of inputs over all time steps at once."""
    below, found = x.swapaxes(0, 1), []
    for place in range(len(workload.hidden)):
        currents = below @ p[f"input{place}"] + p[f"input{place} bias"]
        below = neurons(workload, currents, p.get(f"recurrent{place}"), detached)
        found.append(below)
    return leaky(below @ p["readout"] + p["readout bias"]), found


def forward_in_one_scan(workload: Workload, p: Parameters, x: Array) -> tuple[Array, list[Array]]:
    """Logits and hidden spikes, all layers within one scan over time."""
    spike, count = SPIKES[workload.surrogate], range(len(workload.hidden))

    def body(carry: Any, below: Array) -> Any:
        states, y = carry
        after, sent = [], []
        for place in count:
            v, z = states[place]
            v = ALPHA * v + below @ p[f"input{place}"] + p[f"input{place} bias"] - jax.lax.stop_gradient(z)
            below = spike(v - 1)
            after.append((v, below))
            sent.append(below)
        y = KAPPA * y + below @ p["readout"] + p["readout bias"]
        return (after, y), (y, sent)

    rest = [(jnp.zeros((x.shape[0], size)),) * 2 for size in workload.hidden]
    start = (rest, jnp.zeros((x.shape[0], workload.outputs)))
    return jax.lax.scan(body, start, x.swapaxes(0, 1))[1]


def recurrent_by_products(workload: Workload, p: Parameters, x: Array, y: Array, detached: bool) -> Any:
    """Loss and gradient of one recurrent layer, each weight's as one product over all time steps.

    A scan's own derivative adds up the recurrent weights' gradient in every step; the gradient of the currents, taken
    as an input of the scan, gives it as Σ_t z_{t-1}ᵀ δ_t in one product.
    """
    inputs = x.swapaxes(0, 1)
    drive = inputs @ p["input0"] + p["input0 bias"]
    fixed = jax.lax.stop_gradient(p["recurrent0"])

    def loss_of(current: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
        spikes = neurons(workload, current, fixed, detached)
        return cross_entropy(leaky(spikes @ weight + bias), y), spikes

    derive = jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True)
    (loss, spikes), (delta, readout, bias) = derive(drive, p["readout"], p["readout bias"])
    before = jnp.concatenate([jnp.zeros_like(spikes[:1]), spikes[:-1]])
    rows = delta.reshape(-1, delta.shape[-1])
    gradient = {
        "input0": inputs.reshape(-1, inputs.shape[-1]).T @ rows,
        "input0 bias": rows.sum(0),
        "recurrent0": before.reshape(-1, before.shape[-1]).T @ rows,
        "readout": readout,
        "readout bias": bias,
    }
    return loss, gradient


def plain(
    workload: Workload, threads: int, one_scan: bool = False, products: bool = False, detached: bool = False
) -> JaxContender:
    """A scan by hand.

    Args:
        workload: the task.
        threads: as many as the process has cores.
        one_scan: all layers within one scan, instead of one after the other.
        products: weight gradients of a recurrent layer as one product over all time steps.
        detached: recurrent spikes carry no gradient: e-prop.
    """
    optimizer = optax.adam(workloads.LEARNING_RATE)
    parameters = first_parameters(workload)

    def run(p: Parameters, x: Array) -> tuple[Array, list[Array]]:
        return forward_in_one_scan(workload, p, x) if one_scan else forward(workload, p, x, detached)

    def derived(p: Parameters, x: Array, y: Array) -> Any:
        if products:
            return recurrent_by_products(workload, p, x, y, detached)
        return jax.value_and_grad(lambda q: cross_entropy(run(q, x)[0], y))(p)

    def train(state: Any, x: Array, y: Array) -> Any:
        p, memory = state
        loss, gradient = derived(p, x, y)
        updates, memory = optimizer.update(gradient, memory)
        return (optax.apply_updates(p, updates), memory), loss

    state = (parameters, optimizer.init(parameters))
    spikes = jax.jit(lambda state, x: run(state[0], x)[1])
    return JaxContender(workload, state, jax.jit(train, donate_argnums=0), spikes)


def rtrl(workload: Workload, threads: int) -> JaxContender:
    """RTRL of one recurrent layer by hand: the influence of every weight on every neuron, and Adam at every time step.

    Args:
        workload: the task.
        threads: as many as the process has cores.
    """
    optimizer = optax.adam(workloads.LEARNING_RATE)
    parameters = first_parameters(workload)
    batch, size, outputs = workload.batch, workload.hidden[0], workload.outputs
    spike, beta = SPIKES[workload.surrogate], BETA if workload.cell == "alif" else 0.0
    unit, columns = jnp.eye(size), (workload.inputs + size + 1) * size

    def body(carry: Any, given: Any) -> Any:
        (p, memory), (v, a, z, y), (on_v, on_a, on_z, on_y), sent = carry
        x, target = given
        # From the step before: what it sends, and what every weight does to that.
        met = jnp.concatenate([x, z, jnp.ones((batch, 1))], axis=1)
        own = (met[:, None, :, None] * unit[None, :, None, :]).reshape(batch, size, columns)
        on_v = ALPHA * on_v + jnp.matmul(p["recurrent0"].T, on_z) + own
        on_a = RHO * on_a + on_z
        v = ALPHA * v + x @ p["input0"] + p["input0 bias"] + z @ p["recurrent0"] - z
        a = RHO * a + z
        z, slope = jax.jvp(spike, (v - 1 - beta * a,), (jnp.ones_like(v),))
        on_z = slope[:, :, None] * (on_v - beta * on_a)
        y = KAPPA * y + z @ p["readout"] + p["readout bias"]
        on_y = KAPPA * on_y + jnp.matmul(p["readout"].T, on_z)
        sent = KAPPA * sent + jnp.concatenate([z, jnp.ones((batch, 1))], axis=1)
        loss, error = jax.value_and_grad(lambda logits: cross_entropy(logits[None], target) / workload.steps)(y)
        hidden = jnp.einsum("bo,bop->p", error, on_y).reshape(-1, size)
        readout = sent.T @ error
        gradient = {
            "input0": hidden[: workload.inputs],
            "recurrent0": hidden[workload.inputs : -1] * (1 - unit),
            "input0 bias": hidden[-1],
            "readout": readout[:-1],
            "readout bias": readout[-1],
        }
        updates, memory = optimizer.update(gradient, memory)
        states = (v, a, z, y), (on_v, on_a, on_z, on_y)
        return ((optax.apply_updates(p, updates), memory), *states, sent), loss

    def train(state: Any, x: Array, y: Array) -> Any:
        rest, influence = jnp.zeros((batch, size)), jnp.zeros((batch, size, columns))
        states = (rest, rest, rest, jnp.zeros((batch, outputs)))
        influences = (influence, influence, influence, jnp.zeros((batch, outputs, columns)))
        start = (state, states, influences, jnp.zeros((batch, size + 1)))
        (after, *_), losses = jax.lax.scan(body, start, (x.swapaxes(0, 1), jnp.broadcast_to(y, (x.shape[1], *y.shape))))
        return after, losses.sum()

    state = (parameters, optimizer.init(parameters))
    spikes = jax.jit(lambda state, x: forward(workload, state[0], x)[1])
    return JaxContender(workload, state, jax.jit(train, donate_argnums=0), spikes)


# Libraries.


def spyx(workload: Workload, threads: int, layerwise: bool = False) -> JaxContender:
    """Spyx: nnx.Linear and its neurons in a Sequential, run over time, in its compiled training step.

    Args:
        workload: the task.
        threads: as many as the process has cores.
        layerwise: linear layers over all time steps at once, and one scan for each layer of neurons.
    """
    import spyx.axn
    import spyx.nn
    from flax import nnx
    from spyx.optimize import make_train_step

    activation = spyx.axn.superspike(workloads.FAST_SIGMOID_SLOPE)
    given, rngs = workload.weights(), nnx.Rngs(0)

    def linear(weight: np.ndarray) -> Any:
        made = nnx.Linear(*weight.shape, rngs=rngs)
        made.kernel[...] = jnp.asarray(weight)
        return made

    layers: list[Any] = []
    for place, size in enumerate(workload.hidden):
        layers.append(linear(given[f"input{place}"]))
        if workload.recurrent:
            neuron = spyx.nn.RLIF((size,), beta=ALPHA, activation=activation, rngs=rngs)
            neuron.recurrent_w[...] = jnp.asarray(given[f"recurrent{place}"])
        else:
            neuron = spyx.nn.LIF((size,), beta=ALPHA, activation=activation, rngs=rngs)
        layers.append(neuron)
    layers += [linear(given["readout"]), spyx.nn.LI((workload.outputs,), beta=KAPPA, rngs=rngs)]
    model = spyx.nn.Sequential(*layers)
    optimizer = nnx.Optimizer(model, optax.adam(workloads.LEARNING_RATE), wrt=nnx.Param)

    def through(part: Any, x: Array) -> Array:
        """A sequence [time, batch, feature] through one layer."""
        return part(x) if isinstance(part, nnx.Linear) else spyx.nn.run(part, x)[0]

    def loss_of(model: Any, x: Array, y: Array) -> Array:
        x = x.swapaxes(0, 1)
        if not layerwise:
            return cross_entropy(spyx.nn.run(model, x)[0], y)
        for part in model.layers:
            x = through(part, x)
        return cross_entropy(x, y)

    compiled = make_train_step(loss_of)

    def train(state: Any, x: Array, y: Array) -> Any:
        return state, compiled(model, optimizer, x, y)

    def spikes(state: Any, x: Array) -> list[Array]:
        x, found = x.swapaxes(0, 1), []
        for part in model.layers[:-2]:
            x = through(part, x)
            found.append(x)
        return found[1::2]

    return JaxContender(workload, None, train, spikes)


def braintrace(workload: Workload, threads: int, algorithm: str) -> JaxContender:
    """braintrace: a recurrent layer of its own operations, driven through the sequence by one of its algorithms.

    Args:
        workload: the task.
        threads: as many as the process has cores.
        algorithm: ``"pp_prop"``, ``"d_rtrl"`` or ``"eprop"``.
    """
    import brainstate
    import braintools
    import braintrace as library

    given = first_parameters(workload)
    spike, beta = SPIKES[workload.surrogate], BETA if workload.cell == "alif" else 0.0

    class Cell(brainstate.nn.Module):  # type: ignore[misc]
        """The workload's neurons and readout."""

        def __init__(self) -> None:
            super().__init__()
            self.both = brainstate.ParamState(jnp.concatenate([given["input0"], given["recurrent0"]]))
            self.bias = brainstate.ParamState(given["input0 bias"])
            self.readout = brainstate.ParamState(given["readout"])
            self.readout_bias = brainstate.ParamState(given["readout bias"])

        def init_state(self, batch_size: int | None = None, **_: Any) -> None:
            shape = (workload.hidden[0],) if batch_size is None else (batch_size, workload.hidden[0])
            self.v = brainstate.HiddenState(jnp.zeros(shape))
            if beta:
                self.a = brainstate.HiddenState(jnp.zeros(shape))
            self.y = brainstate.HiddenState(jnp.zeros((*shape[:-1], workload.outputs)))

        def sent(self) -> Array:
            """The spikes of the last step, a function of the state."""
            return spike(self.v.value - 1 - (beta * self.a.value if beta else 0.0))

        def update(self, x: Array) -> Array:
            z = self.sent()
            sent = jnp.concatenate([x, z], axis=-1)
            current = library.matmul(sent, self.both.value, self.bias.value)
            self.v.value = ALPHA * self.v.value + current - jax.lax.stop_gradient(z)
            if beta:
                self.a.value = RHO * self.a.value + z
            current = library.matmul(self.sent(), self.readout.value, self.readout_bias.value)
            self.y.value = KAPPA * self.y.value + current
            return self.y.value

    model = Cell()
    options = {"pp_prop": {"decay_or_rank": 0.9}, "eprop": {"kappa_filter_decay": KAPPA}}.get(algorithm, {})
    first = jnp.zeros((workload.batch, workload.inputs))
    learner = library.compile(model, algorithm, first, batch_size=workload.batch, **options)
    weights = model.states(brainstate.ParamState)
    optimizer = braintools.optim.Adam(lr=workloads.LEARNING_RATE)
    optimizer.register_trainable_weights(weights)

    def stepped(x: Array, y: Array) -> Array:
        brainstate.nn.init_all_states(model, batch_size=workload.batch)
        learner.reset_state(workload.batch)
        inputs = x.swapaxes(0, 1)

        def step_loss(x_t: Array) -> Array:
            return optax.softmax_cross_entropy_with_integer_labels(learner(x_t), y).mean()

        gradients, losses = learner.etrace_grad(inputs, step_fn=step_loss, return_value=True)
        optimizer.update(gradients)
        return jnp.mean(losses)

    compiled = brainstate.transform.jit(stepped)

    def train(state: Any, x: Array, y: Array) -> Any:
        return state, compiled(x, y)

    def spikes(state: Any, x: Array) -> list[Array]:
        return forward(workload, given, x)[1]

    return JaxContender(workload, None, train, spikes)
