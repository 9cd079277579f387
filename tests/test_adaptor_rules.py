"""Wrapped models with everything that needs only their loss: samplers, perturbation, pulses; the rest refuses them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from credit_cases import data
from test_adaptors import LIBRARIES, X, Y, jax_function, keras_model, torch_module, wrapped

from neko_rules import (
    BPTT,
    HMC,
    LIF,
    MALA,
    Crossbar,
    Evaluator,
    JaxModel,
    KerasModel,
    Manhattan,
    NodePerturbation,
    Posterior,
    TorchModel,
    Trainer,
    WeightPerturbation,
)
from neko_rules.backend import is_installed
from neko_rules.devices import Constant, SoftBounds
from neko_rules.errors import IncompatibleError
from neko_rules.rules import RULES

FIT = ("bptt", "manhattan", "tiki_taka", "tiki_taka_v2", "weight_perturbation")
"""The rules that train every wrapped model; node perturbation needs layers, which a JAX function does not show."""

libraries = pytest.mark.parametrize("library", LIBRARIES)


def bare() -> Any:
    """A torch module with everything that behaves otherwise in training, and its wrapper."""
    import torch

    made = torch_module(torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5))
    with torch.no_grad():
        made[1].running_mean.add_(0.3)
    return TorchModel(made, inputs=5)


# Perturbation.


@libraries
class TestWeightPerturbation:
    def test_it_is_its_equation(self, library: str) -> None:
        """(E(w + c d) - E(w - c d))/(2c) d, from two evaluations of the user's model."""
        model = Evaluator(wrapped(library))
        for antithetic in (True, False):
            rule = WeightPerturbation(model, size=0.05, antithetic=antithetic, seed=4)
            found, drawn, before = rule.gradients(X, Y), rule._draw(1, len(X)), model.network.parameters
            losses = {}
            for sign in (1, -1, 0):
                moved = {name: value + sign * 0.05 * drawn[name][0] for name, value in before.items()}
                model.network.set_parameters(moved)
                losses[sign] = model.evaluate(X, Y)["loss"]
            model.network.set_parameters(before)
            slope = (losses[1] - losses[-1]) / 0.1 if antithetic else (losses[1] - losses[0]) / 0.05
            for name, gradient in found.items():
                # Differences of two losses of order 1 in single precision: 1e-7/0.05.
                np.testing.assert_allclose(gradient, slope * drawn[name][0], atol=2e-5, err_msg=name)
        assert abs(slope) > 1e-2

    def test_many_directions_point_along_the_gradient(self, library: str) -> None:
        """400 directions in 66 dimensions: a cosine of about (1 + 65/400)^-1/2 = 0.93; 0.91 to 0.95 over ten seeds."""
        model = Evaluator(wrapped(library))
        truth = BPTT(model).gradients(X, Y)
        found = WeightPerturbation(model, size=1e-2, directions=400).gradients(X, Y)
        one, other = (np.concatenate([g[name].ravel() for name in truth]) for g in (found, truth))
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.8

    def test_it_trains(self, library: str) -> None:
        rule = WeightPerturbation(
            Evaluator(wrapped(library)),
            size=1e-2,
            directions=8,
            optimizer={"name": "sgd", "learning_rate": 0.1},
        )
        losses = [rule.step(X, Y)["loss"] for _ in range(40)]
        assert losses[-1] < 0.8 * losses[0]


def test_both_sides_of_a_difference_see_the_same_dropout() -> None:
    pytest.importorskip("torch")
    model = Evaluator(bare())
    rule = WeightPerturbation(model, size=1e-3, directions=200)
    truth = BPTT(model).gradients(X, Y)
    found = rule.gradients(X, Y)
    one, other = (np.concatenate([g[name].ravel() for name in truth]) for g in (found, truth))
    # With masks of their own, two losses would differ by far more than a step of 0.001 moves them.
    assert np.linalg.norm(one) < 3 * np.linalg.norm(other)
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.6


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "jax"])
class TestNodePerturbation:
    def test_it_is_its_equation(self, library: str) -> None:
        """Noise on the outputs of both layers, written out in NumPy for two directions."""
        model = Evaluator(wrapped(library))
        rule = NodePerturbation(model, size=0.3, directions=2, seed=5)
        found, drawn = rule.gradients(X, Y), rule._draw(1, len(X))
        first, second = drawn.values()
        assert first.shape == (2, 40, 8)
        weights = [value for value in model.network.parameters.values() if value.ndim == 2]
        w, v = (value.T if library == "torch" else value for value in weights)

        def losses(one: np.ndarray | float, other: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
            hidden = np.tanh(X @ w + one)
            logits = hidden @ v + other
            return -(logits - np.log(np.exp(logits).sum(1, keepdims=True)))[np.arange(40), Y] / 40, hidden

        before, wanted = losses(0.0, 0.0)[0], [np.zeros((5, 8)), np.zeros(8), np.zeros((8, 2)), np.zeros(2)]
        for direction in range(2):
            for sign in (1, -1):
                xi = [sign * each[direction] for each in (first, second)]
                loss, hidden = losses(0.3 * xi[0], 0.3 * xi[1])
                one, other = ((loss - before)[:, None] * each / (2 * 2 * 0.3) for each in xi)
                for part, more in zip(wanted, (X.T @ one, one.sum(0), hidden.T @ other, other.sum(0)), strict=True):
                    part += more
        for gradient, value in zip(found.values(), wanted, strict=True):
            transposed = value.T if library == "torch" and value.ndim == 2 else value
            np.testing.assert_allclose(gradient, transposed, rtol=1e-3, atol=1e-5)
        assert np.abs(wanted[0]).max() > 1e-2

    def test_its_mean_is_the_gradient_and_the_model_is_left_as_it_was(self, library: str) -> None:
        """40 directions: the cosine lay between 0.93 and 0.97 over ten seeds."""
        model = Evaluator(wrapped(library))
        truth = BPTT(model).gradients(X, Y)
        before = model.predict(X)
        found = NodePerturbation(model, size=0.02, directions=40).gradients(X, Y)
        one, other = (np.concatenate([g[name].ravel() for name in truth]) for g in (found, truth))
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.75
        assert np.array_equal(model.predict(X), before)
        assert all(np.array_equal(BPTT(model).gradients(X, Y)[name], value) for name, value in truth.items())

    def test_batch_normalisation_credits_the_batch_and_dropout_is_one_for_all(self, library: str) -> None:
        if library == "torch":
            network = bare()
        else:
            import keras

            between = [keras.layers.BatchNormalization(name="norm"), keras.layers.Dropout(0.5, seed=3)]
            network = KerasModel(keras_model(*between), inputs=5)
        model = Evaluator(network)
        truth = BPTT(model).gradients(X, Y)
        found = NodePerturbation(model, size=0.01, directions=30).gradients(X, Y)
        one, other = (np.concatenate([g[name].ravel() for name in truth]) for g in (found, truth))
        # Credited with the batch: the noise of 40 examples in every entry, and the gradient on average. Over ten seeds
        # its part along the gradient lay between 0.5 and 1.8 of it, 1.1 ± 0.4.
        assert 0.1 < one @ other / (other @ other) < 2.5


def test_what_has_no_layers_of_its_own_is_refused() -> None:
    torch = pytest.importorskip("torch")

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
            self.inner = torch.nn.Linear(5, 2)

        def forward(self, x: Any) -> Any:
            return self.inner(self.scale * x)

    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.RNN(5, 2, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.rnn(x[:, None])[0][:, 0]

    with pytest.raises(IncompatibleError, match="both in Scaled"):
        NodePerturbation(Evaluator(TorchModel(Scaled()))).step(X, Y)
    with pytest.raises(IncompatibleError, match="rnn returns more"):
        NodePerturbation(Evaluator(TorchModel(Recurrent()))).step(X, Y)
    with pytest.raises(IncompatibleError, match="neurons or layers that noise can be added to"):
        NodePerturbation(Evaluator(wrapped("jax")))


# Samplers.


@libraries
class TestSamplers:
    def test_the_density_is_the_posterior_written_out(self, library: str) -> None:
        model = Evaluator(wrapped(library))
        posterior = Posterior(model)
        vector = posterior.vector(model.network.parameters)
        energy, gradient = posterior.density(X, Y).energy_and_gradient(vector[None])
        prior, slope, total = 0.0, [], BPTT(model).gradients(X, Y)
        for name, value in model.network.parameters.items():
            # Weights sum over 5 inputs or 8 hidden units, however the library lays them out.
            scale = 1.0 if value.ndim == 1 else 1 / math.sqrt(5 if value.size == 40 else 8)
            prior += np.sum(value.astype(float) ** 2) / (2 * scale**2) + value.size * math.log(
                scale * math.sqrt(2 * math.pi)
            )
            slope.append((len(X) * total[name] + value / scale**2).ravel())
        wanted = len(X) * model.evaluate(X, Y)["loss"] + prior
        # The prior's energy may leave out a constant: differences of energies are what counts.
        constant = prior - posterior.prior_density().energy(vector[None])[0]
        assert energy[0] == pytest.approx(wanted - constant, rel=1e-5)
        np.testing.assert_allclose(gradient[0], np.concatenate(slope), rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("sampler", [MALA, HMC])
    def test_chains_move_and_repeat_and_leave_the_model_alone(self, library: str, sampler: Any) -> None:
        model = Evaluator(wrapped(library), metrics=["accuracy"])
        before, rule = model.network.parameters, sampler(Posterior(model))
        runs = [Trainer(rule).sample(X, Y, draws=30, warmup=60, chains=1, seed=seed) for seed in (1, 1, 2)]
        first, again, other = (run.records[0].draws for run in runs)
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert 0.2 < runs[0].statistics["acceptance_rate"].mean() <= 1
        assert all(np.array_equal(model.network.parameters[name], value) for name, value in before.items())
        assert (runs[0].predict(X).classes.ravel() == Y).mean() > 0.8


def test_a_sampler_follows_the_model_in_evaluation_mode() -> None:
    """No dropout and the running statistics, whatever mode a rule has been compiled in before."""
    torch = pytest.importorskip("torch")
    model = Evaluator(bare())
    module = model.network.module  # type: ignore[attr-defined]
    rule = BPTT(model)
    in_training = rule.gradients(X, Y)
    posterior = Posterior(model, prior_scale=1e6)
    vector = posterior.vector(model.network.parameters)
    density = posterior.density(X, Y, rule)
    energy, gradient = density.energy_and_gradient(vector[None])
    again = density.energy_and_gradient(vector[None])
    assert np.array_equal(energy, again[0])
    assert np.array_equal(gradient, again[1])

    module.eval()
    module.zero_grad()
    loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(Y), reduction="sum")
    loss.backward()
    expected = np.concatenate([each.grad.numpy().ravel() for each in module.parameters()])
    np.testing.assert_allclose(gradient[0], expected, rtol=1e-3, atol=1e-4)
    flat = np.concatenate([in_training[name].ravel() for name in model.network.names])
    assert np.abs(gradient[0] / len(X) - flat).max() > 1e-3
    # Parts of another size change nothing: in training mode, statistics of a batch would.
    parts = Posterior(model, prior_scale=1e6, chunk_size=7).density(X, Y).energy_and_gradient(vector[None])
    np.testing.assert_allclose(parts[1], gradient, rtol=1e-3, atol=1e-4)


def test_keras_and_jax_models_are_sampled_in_evaluation_mode_too() -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    user = keras_model(keras.layers.BatchNormalization(name="norm"), keras.layers.Dropout(0.5, seed=3))
    model = Evaluator(KerasModel(user, inputs=5))
    posterior = Posterior(model)
    vector, moving = posterior.vector(model.network.parameters), user.get_layer("norm").moving_mean.numpy()
    whole = posterior.density(X, Y).energy_and_gradient(vector[None])
    parts = Posterior(model, chunk_size=7).density(X, Y).energy_and_gradient(vector[None])
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert np.array_equal(user.get_layer("norm").moving_mean.numpy(), moving)

    if not is_installed("jax"):
        return
    seen = []

    def function(p: Any, x: Any, key: Any = None, training: bool = False) -> Any:
        seen.append(training)
        return jax_function(p, x)

    tree = wrapped("jax").tree
    jax_posterior = Posterior(Evaluator(JaxModel(function, tree, inputs=5)))
    seen.clear()
    start = jax_posterior.vector(jax_posterior.model.network.parameters)
    jax_posterior.density(X, Y).energy_and_gradient(start[None])
    assert seen
    assert not any(seen)


# Pulses, and what is refused.


@libraries
@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_trains_a_wrapped_model_or_names_what_does(library: str, name: str) -> None:
    model = Evaluator(wrapped(library))
    if name in FIT or (name == "node_perturbation" and library != "jax"):
        rule = RULES[name](model, **({"crossbar": {"w_max": 2.0}} if name.startswith("tiki_taka") else {}))
        before = model.network.parameters
        assert np.isfinite(rule.step(X, Y)["loss"])
        moved = [float(np.abs(model.network.parameters[key] - value).max()) for key, value in before.items()]
        assert max(moved) > 0
    else:
        with pytest.raises(IncompatibleError, match="use BPTT, Manhattan, Tiki-Taka, a sampler or weight perturbation"):
            RULES[name](model)


def test_every_rule_that_fits_is_a_rule() -> None:
    assert set(FIT) <= set(RULES)


@libraries
def test_it_lives_on_a_crossbar_and_outside(library: str) -> None:
    network = wrapped(library)
    model = Evaluator(network, metrics=["accuracy"])
    rule = Manhattan(model, 5e-3, crossbar=Crossbar(SoftBounds(step=2e-7), w_max=2.0), decision="momentum")
    first = model.evaluate(X, Y)["loss"]
    for _ in range(40):
        rule.step(X, Y)
    assert model.evaluate(X, Y)["loss"] < 0.7 * first
    assert rule.crossbar is not None
    for name, value in rule.crossbar.weights.items():
        np.testing.assert_allclose(network.parameters[name], value, rtol=1e-5, atol=1e-6)
    # The user's own object shows what was learned.
    if library == "torch":
        import torch

        outside = network.module(torch.from_numpy(X)).detach().numpy()
    elif library == "tensorflow":
        outside = np.asarray(network.model(X, training=False))
    else:
        outside = np.asarray(jax_function(network.tree, X))
    np.testing.assert_allclose(outside, model.predict(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["backpropagation", "manhattan", "bounded conductances", "sign of momentum"])
def test_a_torch_and_a_keras_model_with_the_same_weights_train_alike(rule: str) -> None:
    """In double precision and with devices without spread, whose layout then does not matter: 30 updates."""
    torch, keras = pytest.importorskip("torch"), pytest.importorskip("keras")
    if not {"torch", "tensorflow"} <= set(LIBRARIES):
        pytest.skip("a library is not installed")
    rng = np.random.default_rng(3)
    x = rng.normal(size=(96, 12))
    y = np.argmax(x @ rng.normal(size=(12, 4)) + rng.normal(size=(96, 4)), axis=1)
    sizes, dense = [(12, 10), (10, 6), (6, 4)], keras.layers.Dense
    first = [rng.normal(0, 0.4, size) for size in sizes]
    module = torch.nn.Sequential(
        torch.nn.Linear(12, 10), torch.nn.ReLU(), torch.nn.Linear(10, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4)
    ).double()
    theirs = keras.Sequential(
        [dense(10, "relu", dtype="float64"), dense(6, "relu", dtype="float64"), dense(4, dtype="float64")]
    )
    theirs.dtype_policy = keras.DTypePolicy("float64")
    made = {"torch": TorchModel(module, inputs=12), "keras": KerasModel(theirs, inputs=12)}
    for library, network in made.items():
        weights = [name for name in network.names if network.parameters[name].ndim == 2]
        network.set_parameters(
            {name: w.T if library == "torch" else w for name, w in zip(weights, first, strict=True)}
            | {name: np.zeros_like(value) for name, value in network.parameters.items() if value.ndim == 1}
        )
    found = {}
    for library, network in made.items():
        model = Evaluator(network)
        make = {
            "backpropagation": lambda m: BPTT(m, optimizer={"name": "adam", "learning_rate": 1e-2}),
            "manhattan": lambda m: Manhattan(m, 5e-3),
            "bounded conductances": lambda m: Manhattan(m, 5e-3, crossbar=Crossbar(Constant(step=3e-7), w_max=1.2)),
            "sign of momentum": lambda m: Manhattan(m, 5e-3, decision="momentum"),
        }[rule](model)
        losses = [make.step(x[i % 3 :: 3], y[i % 3 :: 3])["loss"] for i in range(30)]
        kept = [value.T if library == "torch" else value for value in network.parameters.values() if value.ndim == 2]
        found[library] = losses, kept
    assert found["torch"][0][-1] < found["torch"][0][0]
    np.testing.assert_allclose(found["keras"][0], found["torch"][0], rtol=1e-9)
    for one, other, start in zip(found["keras"][1], found["torch"][1], first, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
        assert np.abs(one - start).max() > 1e-2


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "jax"])
def test_a_layer_that_is_thawed_in_mid_training_trains_on_with_the_rest(library: str) -> None:
    network = wrapped(library)
    frozen = network.module[0] if library == "torch" else network.model.layers[0]

    def thaw(thawed: bool) -> None:
        if library == "torch":
            frozen.requires_grad_(thawed)
        else:
            frozen.trainable = thawed

    thaw(False)
    rule = BPTT(Evaluator(network), optimizer={"name": "momentum", "learning_rate": 0.1})
    rule.step(X, Y)
    assert len(network.names) == 2
    thaw(True)
    assert len(network.names) == 4
    before, found, velocity = network.parameters, rule.gradients(X, Y), rule.state()
    rule.step(X, Y)
    for name, gradient in found.items():
        # A layer that is new has the velocity 0, the other goes on with its own.
        change = -0.1 * (0.9 * velocity[f"optimizer/velocity/{name}"] + gradient)
        np.testing.assert_allclose(network.parameters[name] - before[name], change, rtol=1e-3, atol=1e-6)
    thaw(False)
    rule.step(X, Y)
    rule.load_state(rule.state())


def test_a_keras_model_made_again_in_the_same_process_has_the_same_names(tmp_path: Any) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    dense = keras.layers.Dense

    def make() -> Any:
        inner = keras.Sequential([dense(4), keras.layers.BatchNormalization()])
        return KerasModel(keras.Sequential([dense(6), inner, dense(4, name="dense_a"), dense(2)]), inputs=5)

    first, again = BPTT(Evaluator(make())), BPTT(Evaluator(make()))
    assert first.model.network.names == again.model.network.names
    # The user's own name stays as it is.
    wanted = {"dense", "sequential.dense_1", "sequential.batch_normalization", "dense_a", "dense_2"}
    assert set(first.model.network.layers) == wanted
    first.step(X, Y)
    again.load_state(first.state())
    assert np.array_equal(again.model.predict(X), first.model.predict(X))
    first.model.network.save(tmp_path / "weights.safetensors")
    loaded = Evaluator(make())
    loaded.network.load(tmp_path / "weights.safetensors")
    assert np.array_equal(loaded.predict(X), first.model.predict(X))
    names = loaded.network.names
    loaded.network.model.layers[0].trainable = False  # type: ignore[attr-defined]
    assert set(loaded.network.names) < set(names)


@libraries
def test_weight_decay_shrinks_what_has_two_axes_and_nothing_else(library: str) -> None:
    """Against the same step without a decay: a weight w ends lower by rate · decay · w."""
    if library == "torch":
        import torch

        class Own(torch.nn.Linear):
            def __init__(self) -> None:
                super().__init__(4, 2)
                self.lstm, self.norm = torch.nn.LSTM(5, 4, batch_first=True), torch.nn.LayerNorm(4)

            def forward(self, x: Any) -> Any:
                return super().forward(self.norm(self.lstm(x)[0]))

        torch.manual_seed(0)
        network: Any = TorchModel(Own(), sequence=True, inputs=5)
        wanted = {"weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"}
    elif library == "tensorflow":
        import keras

        layers = [keras.layers.GRU(4, return_sequences=True), keras.layers.LayerNormalization(), keras.layers.Dense(2)]
        network = KerasModel(keras.Sequential(layers), sequence=True, inputs=5)
        wanted = {"gru.gru_cell.kernel", "gru.gru_cell.recurrent_kernel", "dense.kernel"}
    else:
        ones = np.ones(2, np.float32)
        tree = {"w": np.ones((5, 2), np.float32), "b": ones, "norm": {"weight": ones}}
        network = JaxModel(lambda p, x: (x @ p["w"] + p["b"]) * p["norm"]["weight"], tree, sequence=True, inputs=5)
        wanted = {"w"}
    x, before = np.stack([X[:8]] * 3, 1), network.parameters
    after = []
    for decay in (0.0, 0.5):
        network.set_parameters({name: value + 1 for name, value in before.items()})
        options = {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "weight_decay": decay}
        BPTT(Evaluator(network), **options).step(x, Y[:8])
        after.append(network.parameters)
    for name, value in before.items():
        shrunk = 0.1 * 0.5 * (value + 1) if name in wanted else np.zeros_like(value)
        np.testing.assert_allclose(after[0][name] - after[1][name], shrunk, atol=1e-6, err_msg=name)
    assert wanted <= set(before)


# Flax and Equinox shapes: a function of a parameter pytree, and of a state.


def flax_like(variables: Any, x: Any, training: bool = False) -> Any:
    """What ``module.apply`` of a Flax module with batch normalisation does, in its own tree of parameters."""
    import jax.numpy as jnp

    p, stats = variables["params"], variables["batch_stats"]["BatchNorm_0"]
    h = x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    mean, var = (jnp.mean(h, 0), jnp.var(h, 0)) if training else (stats["mean"], stats["var"])
    kept = {"mean": 0.9 * stats["mean"] + 0.1 * mean, "var": 0.9 * stats["var"] + 0.1 * var}
    h = (h - mean) / jnp.sqrt(var + 1e-5) * p["BatchNorm_0"]["scale"] + p["BatchNorm_0"]["bias"]
    outputs = jnp.tanh(h) @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]
    return outputs, {"batch_stats": {"BatchNorm_0": kept if training else stats}}


def test_a_flax_shape_with_batch_statistics_fits() -> None:
    pytest.importorskip("jax")
    rng = np.random.default_rng(0)

    def dense(n: int, m: int) -> dict[str, np.ndarray]:
        return {"kernel": rng.normal(0, 0.5, (n, m)).astype(np.float32), "bias": np.zeros(m, np.float32)}

    norm = {"scale": np.ones(8, np.float32), "bias": np.zeros(8, np.float32)}
    params = {"Dense_0": dense(5, 8), "BatchNorm_0": norm, "Dense_1": dense(8, 2)}
    stats = {"BatchNorm_0": {"mean": np.zeros(8, np.float32), "var": np.ones(8, np.float32)}}

    def function(p: Any, state: Any, x: Any, training: bool) -> Any:
        return flax_like({"params": p, **state}, x, training)

    network = JaxModel(function, params, state={"batch_stats": stats}, inputs=5)
    model = Evaluator(network)
    rule = BPTT(model, optimizer={"name": "adam", "learning_rate": 0.03})
    hidden = X @ params["Dense_0"]["kernel"]
    model.predict(X)  # compiled with the first statistics, which must not stay in it
    first = rule.step(X, Y)["loss"]
    kept = network.state["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(kept["mean"], 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-6)
    for _ in range(30):
        last = rule.step(X, Y)["loss"]
    assert last < 0.6 * first
    outside, _ = flax_like({"params": network.tree, **network.state}, X)
    np.testing.assert_allclose(outside, model.predict(X), rtol=1e-4, atol=1e-5)
    assert not params["Dense_0"]["bias"].any()
    frozen = network.observed
    Manhattan(model, 1e-3).gradients(X, Y)
    MALA(Posterior(model))
    assert all(np.array_equal(network.observed[name], value) for name, value in frozen.items())


def test_flax_itself() -> None:
    linen = pytest.importorskip("flax.linen")
    jax = pytest.importorskip("jax")

    class Net(linen.Module):  # type: ignore[misc, name-defined]
        @linen.compact
        def __call__(self, x: Any, training: bool = False) -> Any:
            x = linen.BatchNorm(use_running_average=not training, momentum=0.5)(linen.Dense(8)(x))
            x = linen.Dropout(0.2, deterministic=not training)(linen.tanh(x))
            return linen.Dense(2)(x)

    net = Net()
    variables = net.init(jax.random.key(0), X[:2])

    def function(params: Any, state: Any, x: Any, key: Any, training: bool) -> Any:
        given = {"params": params, **state}
        return net.apply(given, x, training, rngs={"dropout": key}, mutable=list(state))

    stats = {"batch_stats": variables["batch_stats"]}
    network = JaxModel(function, variables["params"], state=stats, inputs=5)
    model = Evaluator(network)
    outside = net.apply({"params": network.tree, **network.state}, X)
    np.testing.assert_allclose(model.predict(X), outside, rtol=1e-4, atol=1e-5)
    rule = BPTT(model, optimizer={"name": "adam", "learning_rate": 0.03})
    losses = [rule.step(X, Y)["loss"] for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    assert float(np.abs(network.state["batch_stats"]["BatchNorm_0"]["mean"]).max()) > 0
    outside = net.apply({"params": network.tree, **network.state}, X)
    np.testing.assert_allclose(model.predict(X), outside, rtol=1e-4, atol=1e-5)


def test_equinox_itself() -> None:
    equinox = pytest.importorskip("equinox")
    jax = pytest.importorskip("jax")
    module = equinox.nn.MLP(5, 2, width_size=8, depth=1, activation=jax.numpy.tanh, key=jax.random.key(0))
    arrays, rest = equinox.partition(module, equinox.is_inexact_array)

    def function(parameters: Any, x: Any) -> Any:
        return jax.vmap(equinox.combine(parameters, rest))(x)

    network = JaxModel(function, arrays, inputs=5)
    assert set(network.names) >= {"layers.0.weight", "layers.1.bias"}
    model = Evaluator(network)
    rule = Manhattan(model, 1e-2, crossbar=Crossbar(Constant(step=1e-7), w_max=1.0))
    losses = [rule.step(X, Y)["loss"] for _ in range(60)]
    assert losses[-1] < 0.9 * losses[0]
    trained = equinox.combine(network.tree, rest)
    np.testing.assert_allclose(jax.vmap(trained)(X), model.predict(X), rtol=1e-4, atol=1e-5)


def test_networks_of_the_package_answer_the_same_questions() -> None:
    x, y = data()
    network = LIF(6, 3, inputs=4)
    assert network.infer(network.values, network.nx.asarray(x.transpose(1, 0, 2))).z("readout").shape == (14, 3, 3)
    assert (network.static, network.stochastic, network.observed) == (False, False, {})
    assert network.layers == ("hidden", "readout")
    assert set(LIF(6, 3).names) == set(network.values)
    with network.evaluating(), network.seeded(None):
        assert np.isfinite(BPTT(Evaluator(network)).step(x, y)["loss"])
    if LIBRARIES:
        model = wrapped(LIBRARIES[0])
        assert model.static
        assert model.stochastic
        assert len(model.layers) == 2
        assert sorted(model.fan_in(name) for name in model.names) == [1, 1, 5, 8]
