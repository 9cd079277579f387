"""Wrapped models: gradients against the library's own training loop, modes, ownership, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neko_rules import BPTT, EProp, Evaluator, JaxModel, KerasModel, TorchModel, Trainer, tensor_file
from neko_rules.backend import is_installed
from neko_rules.errors import ArgumentError, DataError, IncompatibleError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
LIBRARIES = [name for name in ("torch", "tensorflow", "jax") if is_installed(name)]
WEIGHTS = {
    "first.weight": RNG.normal(0, 0.5, (5, 8)).astype(np.float32),
    "first.bias": np.zeros(8, np.float32),
    "second.weight": RNG.normal(0, 0.5, (8, 2)).astype(np.float32),
    "second.bias": np.zeros(2, np.float32),
}


def torch_module(*between: Any) -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 8), *between, torch.nn.Tanh(), torch.nn.Linear(8, 2))


def keras_model(*between: Any) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Dense(8, name="first"),
            *between,
            keras.layers.Activation("tanh"),
            keras.layers.Dense(2, name="second"),
        ],
        name="user",
    )


def jax_function(p: Any, x: Any) -> Any:
    import jax.numpy as jnp

    return jnp.tanh(x @ p["first"]["weight"] + p["first"]["bias"]) @ p["second"]["weight"] + p["second"]["bias"]


def wrapped(library: str) -> Any:
    """The same perceptron with the same weights in every library."""
    if library == "torch":
        model = TorchModel(torch_module(), inputs=5)
        names = {
            "0.weight": "first.weight",
            "0.bias": "first.bias",
            "2.weight": "second.weight",
            "2.bias": "second.bias",
        }
        model.set_parameters({ours: WEIGHTS[name].T for ours, name in names.items()})
        return model
    if library == "tensorflow":
        model = KerasModel(keras_model(), inputs=5)
        model.set_parameters({name.replace("weight", "kernel"): value for name, value in WEIGHTS.items()})
        return model
    tree: dict[str, Any] = {"first": {}, "second": {}}
    for name, value in WEIGHTS.items():
        layer, kind = name.split(".")
        tree[layer][kind] = value
    return JaxModel(jax_function, tree, inputs=5)


def expected() -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients of the perceptron, written out in NumPy."""
    w, v = WEIGHTS["first.weight"].astype(np.float64), WEIGHTS["second.weight"].astype(np.float64)
    hidden = np.tanh(X @ w)
    logits = hidden @ v
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(p[np.arange(40), Y]).mean()
    d = (p - np.eye(2)[Y]) / 40
    e = (d @ v.T) * (1 - hidden**2)
    return loss, {
        "first.weight": X.T @ e,
        "first.bias": e.sum(0),
        "second.weight": hidden.T @ d,
        "second.bias": d.sum(0),
    }


def order(library: str) -> list[str]:
    return ["first.weight", "first.bias", "second.weight", "second.bias"]


@pytest.mark.parametrize("library", LIBRARIES)
class TestEveryLibrary:
    def test_bptt_is_the_gradient_written_out(self, library: str) -> None:
        rule = BPTT(Evaluator(wrapped(library), metrics=["accuracy"]))
        loss, truth = expected()
        found = rule.gradients(X, Y)
        names = sorted(truth) if library == "jax" else order(library)
        for gradient, name in zip(found.values(), names, strict=True):
            wanted = truth[name].T if library == "torch" else truth[name]
            np.testing.assert_allclose(gradient, wanted, rtol=2e-4, atol=1e-7, err_msg=name)
        assert rule.model.evaluate(X, Y)["loss"] == pytest.approx(loss, rel=1e-5)
        assert rule.step(X, Y)["loss"] == pytest.approx(loss, rel=1e-5)

    def test_it_trains_predicts_clones_and_resumes(self, library: str) -> None:
        rule = BPTT(
            Evaluator(wrapped(library), metrics=["accuracy"]), optimizer={"name": "adam", "learning_rate": 0.05}
        )
        history = Trainer(rule).train(X, Y, epochs=4, batch_size=20, progress=False)
        assert history["loss"][-1] < 0.8 * history["loss"][0]
        assert rule.model.predict(X).shape == (40, 2)
        twin, saved = rule.clone(), rule.state()
        rule.step(X, Y)
        after = rule.state()
        assert all(np.array_equal(twin.state()[name], value) for name, value in saved.items())
        twin.step(X, Y)
        rule.load_state(saved)
        rule.step(X, Y)
        for name, value in after.items():
            assert np.array_equal(rule.state()[name], value), name
            np.testing.assert_allclose(twin.state()[name], value, rtol=1e-6, err_msg=name)

    def test_rules_that_need_neurons_refuse_it_naming_what_fits(self, library: str) -> None:
        with pytest.raises(IncompatibleError, match="use BPTT, Manhattan, Tiki-Taka, a sampler or weight pert"):
            EProp(Evaluator(wrapped(library)))

    def test_data_that_do_not_fit_are_refused(self, library: str) -> None:
        model = Evaluator(wrapped(library))
        with pytest.raises(DataError, match="takes examples of shape"):
            model.predict(np.ones((3, 4)))
        with pytest.raises(DataError, match="must be finite"):
            model.predict(np.full((3, 5), np.nan))
        with pytest.raises(ArgumentError, match="unknown parameter"):
            model.network.set_parameters({"thrd.weight": np.ones(3)})


def test_a_static_example_may_have_any_shape() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 2))
    rule = BPTT(Evaluator(TorchModel(module)))
    x = np.random.default_rng(0).normal(size=(6, 1, 6, 6))
    assert np.isfinite(rule.step(x, np.arange(6) % 2)["loss"])
    with pytest.raises(DataError, match="cannot run on examples of shape"):
        Evaluator(TorchModel(torch.nn.Linear(3, 2))).predict(np.ones((2, 4)))


def test_a_sequence_model_is_judged_at_every_step() -> None:
    torch = pytest.importorskip("torch")

    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.RNN(3, 6, batch_first=True)
            self.out = torch.nn.Linear(6, 2)

        def forward(self, x: Any) -> Any:
            return self.out(self.rnn(x)[0])

    torch.manual_seed(0)
    module = Recurrent()
    x = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
    y = np.array([0, 1, 0, 1])
    rule = BPTT(Evaluator(TorchModel(module, sequence=True)))
    loss = torch.nn.functional.cross_entropy(
        module(torch.from_numpy(x)).reshape(28, 2), torch.from_numpy(np.repeat(y, 7))
    )
    loss.backward()
    found = rule.gradients(x, y)
    for name, each in module.named_parameters():
        np.testing.assert_allclose(found[name], each.grad.numpy(), rtol=1e-4, atol=1e-7, err_msg=name)
    assert rule.model.predict(x).shape == (4, 7, 2)


def test_the_module_stays_the_users_own() -> None:
    torch = pytest.importorskip("torch")
    module = torch_module()
    objects = list(module.parameters())
    module[0].bias.requires_grad_(False)
    module.eval()
    frozen, before = module[0].bias.clone(), module(torch.from_numpy(X)).detach().numpy()
    model = Evaluator(TorchModel(module))
    np.testing.assert_allclose(model.predict(X), before, rtol=1e-5)
    earlier = model.network.values
    kept = {name: value.clone() for name, value in earlier.items()}
    rule = BPTT(model, optimizer={"name": "adam", "learning_rate": 0.05})
    state = torch.get_rng_state()
    for _ in range(5):
        rule.step(X, Y)
    assert torch.equal(torch.get_rng_state(), state)
    assert not module.training
    assert all(one is other for one, other in zip(objects, module.parameters(), strict=True))
    assert torch.equal(module[0].bias, frozen)
    assert all(torch.equal(earlier[name], value) for name, value in kept.items())
    np.testing.assert_allclose(module(torch.from_numpy(X)).detach().numpy(), model.predict(X), rtol=1e-5)
    assert np.abs(model.predict(X) - before).max() > 0.1
    assert module.state_dict().keys() == torch_module().state_dict().keys()


def test_batch_norm_and_dropout_have_the_modes_of_a_usual_training_loop() -> None:
    torch = pytest.importorskip("torch")
    module = torch_module(torch.nn.BatchNorm1d(8))
    reference = torch_module(torch.nn.BatchNorm1d(8))
    reference.load_state_dict(module.state_dict())
    rule = BPTT(Evaluator(TorchModel(module)), optimizer={"name": "sgd", "learning_rate": 0.1})
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    rule.gradients(X, Y)  # changes nothing, the running mean included
    for _ in range(6):
        rule.step(X, Y)
        reference.train()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(reference(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
        optimizer.step()
    for name, value in reference.state_dict().items():
        np.testing.assert_allclose(module.state_dict()[name].numpy(), value.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
    reference.eval()
    np.testing.assert_allclose(
        rule.model.predict(X), reference(torch.from_numpy(X)).detach().numpy(), rtol=1e-3, atol=1e-5
    )


def test_a_torch_module_that_uses_a_part_or_a_weight_twice_trains_as_in_torch() -> None:
    torch = pytest.importorskip("torch")

    def make() -> Any:
        torch.manual_seed(0)
        cell, norm, one, other = (
            torch.nn.Linear(5, 5),
            torch.nn.BatchNorm1d(5),
            torch.nn.Linear(5, 5),
            torch.nn.Linear(5, 5),
        )
        other.weight = one.weight
        tanh = torch.nn.Tanh()
        return torch.nn.Sequential(cell, norm, tanh, cell, norm, tanh, one, tanh, other, torch.nn.Linear(5, 2)).double()

    module, reference = make(), make()
    objects = dict(module.named_parameters(remove_duplicate=False))
    rule = BPTT(Evaluator(TorchModel(module, inputs=5)), optimizer={"name": "sgd", "learning_rate": 0.1})
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    x = X.astype(np.float64)
    for _ in range(5):
        gradients = rule.gradients(x, Y)
        rule.step(x, Y)
        reference.train()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(reference(torch.from_numpy(x)), torch.from_numpy(Y)).backward()
        for name, each in reference.named_parameters():
            np.testing.assert_allclose(gradients[name], each.grad.numpy(), rtol=1e-10, atol=1e-14, err_msg=name)
        optimizer.step()
    rule.model.predict(x)
    after = dict(module.named_parameters(remove_duplicate=False))
    assert after.keys() == objects.keys()
    assert all(after[name] is each for name, each in objects.items())
    for name, value in reference.state_dict().items():
        np.testing.assert_allclose(module.state_dict()[name].numpy(), value.numpy(), rtol=1e-10, err_msg=name)


def test_dropout_is_drawn_per_step_from_the_seed_and_off_in_evaluation() -> None:
    torch = pytest.importorskip("torch")

    def run(seed: int) -> tuple[list[float], np.ndarray]:
        rule = BPTT(Evaluator(TorchModel(torch_module(torch.nn.Dropout(0.5)))), optimizer="naive", seed=seed)
        rule.gradients(X, Y)
        return [rule.step(X, Y)["loss"] for _ in range(3)], rule.model.predict(X)

    assert run(0)[0] == run(0)[0]
    assert run(0)[0] != run(1)[0]
    rule = BPTT(Evaluator(TorchModel(torch_module(torch.nn.Dropout(0.5)))))
    assert np.array_equal(rule.model.predict(X), rule.model.predict(X))
    one, again = rule.gradients(X, Y), rule.gradients(X, Y)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    rule.step(X, Y)
    assert rule.step(X, Y)["loss"] != rule.model.evaluate(X, Y)["loss"]


def beside(library: str) -> Any:
    """Dropout whose outputs go to a batch normalisation, and with it to a readout of three classes that starts at 0."""
    if library == "torch":
        import torch

        class Beside(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dropout, self.norm = torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(6, momentum=0.01)
                self.norm.running_mean.fill_(1)
                self.out = torch.nn.Linear(12, 3, bias=False)
                torch.nn.init.zeros_(self.out.weight)

            def forward(self, x: Any) -> Any:
                h = self.dropout(x)
                return self.out(torch.cat([h, self.norm(h)], 1))

        return TorchModel(Beside(), inputs=6)
    if library == "tensorflow":
        import keras

        x = keras.Input((6,))
        h = keras.layers.Dropout(0.5, seed=3)(x)
        norm = keras.layers.BatchNormalization(name="norm", moving_mean_initializer="ones")(h)
        out = keras.layers.Dense(3, use_bias=False, name="out", kernel_initializer="zeros")
        return KerasModel(keras.Model(x, out(keras.layers.Concatenate()([h, norm]))), inputs=6)
    import jax
    import jax.numpy as jnp

    def function(p: Any, state: Any, x: Any, key: Any, training: bool) -> Any:
        h = 2.0 * x * jax.random.bernoulli(key, 0.5, x.shape) if training else x
        mean = jnp.mean(h, 0) if training else state["mean"]
        after = 0.99 * state["mean"] + 0.01 * mean
        return jnp.concatenate([h, h - mean], 1) @ p["out"], {"mean": after if training else mean}

    state = {"mean": np.ones(6, np.float32)}
    return JaxModel(function, {"out": np.zeros((12, 3), np.float32)}, state=state, inputs=6)


@pytest.mark.parametrize("library", LIBRARIES)
def test_batch_norm_behind_dropout_sees_the_masks_of_the_training_pass(library: str) -> None:
    """With all weights 0 and class 0 the gradient of the first class is -2/3 of the mean that the pass saw.

    Of 200 steps with 16 examples, 2 · Bernoulli(1/2), a running mean with a share of 0.01 has the standard deviation
    √(0.01/1.99)/4 = 0.018 around 1; one of six is off by 0.1 with a probability below 1e-6.
    """
    network = beside(library)
    rule = BPTT(Evaluator(network), optimizer={"name": "sgd", "learning_rate": 1e-9})
    x, y = np.ones((16, 6), np.float32), np.zeros(16, int)
    wanted = np.ones(6)
    for _ in range(200):
        _, found = rule.observed_step(x, y)
        (gradient,) = (each if each.shape[0] == 12 else each.T for name, each in found.items() if "out" in name)
        wanted = 0.99 * wanted + 0.01 * gradient[:6, 0] / (-2 / 3)
    (mean,) = (np.asarray(each) for name, each in network.observed.items() if "mean" in name)
    np.testing.assert_allclose(mean, wanted, rtol=1e-5)
    np.testing.assert_allclose(mean, 1, atol=0.1)
    assert np.abs(mean - 1).max() > 1e-3


def test_two_dropouts_of_a_keras_model_draw_masks_of_their_own() -> None:
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    dropouts = [keras.layers.Dropout(0.5) for _ in range(2)]
    ones = keras.layers.Dense(4, kernel_initializer="identity")
    model = KerasModel(keras.Sequential([*dropouts, ones]), inputs=4)
    with model.seeded(tf.constant(5.0)):
        kept = model.forward(model.values, tf.ones((1, 1000, 4))).z("output").numpy() > 0
    # A quarter of 4000, with a standard deviation of 0.007; a half if both drew alike.
    assert 0.2 < kept.mean() < 0.3


def test_keras_batch_norm_and_dropout() -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    between = [keras.layers.BatchNormalization(name="norm", momentum=0.5), keras.layers.Dropout(0.5, seed=3)]
    user = keras_model(*between)
    rule = BPTT(Evaluator(KerasModel(user, inputs=5)), optimizer="naive")
    first = rule.model.predict(X)
    assert np.array_equal(first, rule.model.predict(X))
    # Sums of single precision, of numbers up to 1, taken in another order.
    np.testing.assert_allclose(user(X, training=False), first, rtol=1e-5, atol=1e-6)
    mean = user.get_layer("norm").moving_mean.numpy()
    one, again = rule.gradients(X, Y), rule.gradients(X, Y)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert np.array_equal(user.get_layer("norm").moving_mean.numpy(), mean)
    hidden = X @ user.get_layer("first").kernel.numpy() + user.get_layer("first").bias.numpy()
    rule.step(X, Y)
    np.testing.assert_allclose(user.get_layer("norm").moving_mean.numpy(), 0.5 * hidden.mean(0), rtol=1e-4, atol=1e-6)
    assert any(not np.array_equal(one[name], value) for name, value in rule.gradients(X, Y).items())
    np.testing.assert_allclose(user(X, training=False), rule.model.predict(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["kernel_regularizer", "activity_regularizer", "add_loss"])
def test_losses_of_a_keras_model_are_refused(kind: str) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    if kind == "add_loss":

        class Adding(keras.layers.Layer):  # type: ignore[misc, name-defined]
            def call(self, x: Any) -> Any:
                self.add_loss(keras.ops.mean(x**2))
                return x

        layers = [Adding(), keras.layers.Dense(2)]
    else:
        layers = [keras.layers.Dense(2, **{kind: keras.regularizers.L2(0.1)})]
    with pytest.raises(IncompatibleError, match="losses of its own: regularizers, activity regularizers or add_loss"):
        Evaluator(KerasModel(keras.Sequential(layers))).predict(X)


def test_constraints_of_a_keras_model_end_every_update() -> None:
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")

    def make() -> Any:
        keras.utils.set_random_seed(0)
        tanh = keras.layers.Dense(8, "tanh", name="first", kernel_constraint=keras.constraints.UnitNorm())
        return keras.Sequential([tanh, keras.layers.Dense(2, bias_constraint=keras.constraints.NonNeg(), name="last")])

    user, reference = make(), make()
    rule = BPTT(Evaluator(KerasModel(user, inputs=5)), optimizer={"name": "sgd", "learning_rate": 0.5})
    reference(X)
    reference.set_weights(user.get_weights())
    optimizer = keras.optimizers.SGD(0.5)
    for _ in range(4):
        rule.step(X, Y)
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(Y, reference(X), from_logits=True)
            loss = tf.reduce_mean(loss)
        gradients = tape.gradient(loss, [each.value for each in reference.trainable_variables])
        optimizer.apply_gradients(zip(gradients, reference.trainable_variables, strict=True))
    for one, other in zip(user.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(user.layers[0].kernel.numpy(), axis=0), 1, rtol=1e-5)


def test_a_keras_model_whose_call_has_no_training_still_drops_out_in_training() -> None:
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")

    class Own(keras.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.out = keras.layers.Dropout(0.5), keras.layers.Dense(5, kernel_initializer="identity")

        def call(self, x: Any) -> Any:
            return self.out(self.dropout(x))

    network = KerasModel(Own(), inputs=5)
    np.testing.assert_allclose(Evaluator(network).predict(X), network.model(X), rtol=1e-6)
    with network.seeded(tf.constant(3.0)):
        outputs = network.forward(network.values, tf.ones((1, 200, 5))).z("output").numpy()
    assert set(np.unique(outputs)) == {0.0, 2.0}
    assert np.isfinite(BPTT(Evaluator(network)).step(X, Y)["loss"])


def test_a_jax_function_gets_key_mode_and_state() -> None:
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    def function(p: Any, state: Any, x: Any, key: Any = None, training: bool = False) -> Any:
        mean = state["mean"]
        if training:
            x = x * jax.random.bernoulli(key, 0.5, x.shape) * 2.0
            mean = 0.5 * mean + 0.5 * jnp.mean(x)
        return x @ p["w"] + 0 * mean, {"mean": mean}

    first = {"w": np.zeros((5, 2), np.float32)}
    model = JaxModel(function, first, state={"mean": jnp.zeros((), jnp.float32)}, inputs=5)
    rule = BPTT(Evaluator(model), optimizer={"name": "sgd", "learning_rate": 0.5})
    one = rule.gradients(X, Y)["w"]
    assert np.array_equal(one, rule.gradients(X, Y)["w"])
    assert float(model.state["mean"]) == 0
    rule.step(X, Y)
    assert float(model.state["mean"]) != 0
    assert np.abs(rule.gradients(X, Y)["w"] - one).max() > 1e-4
    assert np.array_equal(first["w"], np.zeros((5, 2)))
    assert np.array_equal(np.asarray(model.tree["w"]), model.parameters["w"])


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_file_holds_statistics_and_frozen_parameters_too(library: str, tmp_path: Any) -> None:
    def make(seed: int) -> Any:
        if library == "torch":
            import torch

            module = torch_module(torch.nn.BatchNorm1d(8))
            torch.nn.init.normal_(module[0].weight, generator=torch.Generator().manual_seed(seed)).requires_grad_(False)
            return TorchModel(module, inputs=5)
        if library == "tensorflow":
            import keras

            user = keras_model(keras.layers.BatchNormalization(name="norm"))
            model = KerasModel(user, inputs=5)
            user.layers[0].kernel.assign(np.random.default_rng(seed).normal(size=(5, 8)))
            user.layers[0].trainable = False
            return model
        state = {"mean": np.full(6, seed, np.float32), "seen": np.zeros((), np.int32)}

        def function(p: Any, state: Any, x: Any, training: bool) -> Any:
            after = {"mean": 0.9 * state["mean"] + x.mean(), "seen": state["seen"] + 1} if training else state
            return x @ p["w"] + state["mean"][:2], after

        return JaxModel(function, {"w": np.full((5, 2), seed, np.float32)}, state=state, inputs=5)

    rule = BPTT(Evaluator(make(0)))
    rule.step(X, Y)
    path = tmp_path / "weights.safetensors"
    rule.model.network.save(path)
    loaded, resumed = Evaluator(make(1)), BPTT(Evaluator(make(1)))
    loaded.network.load(path)
    resumed.load_state(rule.state())
    for each in (loaded, resumed.model):
        assert np.array_equal(each.predict(X), rule.model.predict(X))
        for name, value in rule.model.network.observed.items():
            assert np.array_equal(np.asarray(each.network.observed[name]), np.asarray(value)), name
    tensor_file.write(path, loaded.network.parameters, tensor_file.WEIGHTS)
    with pytest.raises(ArgumentError, match="all parameters and all that the model keeps beside them"):
        loaded.network.load(path)


def test_double_numpy_parameters_take_the_type_that_jax_has_and_resume_bit_for_bit() -> None:
    jax = pytest.importorskip("jax")

    def function(p: Any, state: Any, x: Any, training: bool) -> Any:
        mean = 0.9 * state["mean"] + 0.1 * x.mean() if training else state["mean"]
        return jax.numpy.tanh(x @ p["w"]) @ p["v"] + mean, {"mean": mean}

    tree = {"w": np.random.default_rng(0).normal(size=(5, 8)), "v": np.random.default_rng(1).normal(size=(8, 2))}
    network = JaxModel(function, tree, state={"mean": np.zeros(())}, inputs=5)
    rule = BPTT(Evaluator(network), optimizer="adam")
    rule.step(X, Y)
    assert tree["w"].dtype == np.float64
    saved, kept = rule.state(), [*network.parameters.values(), *map(np.asarray, network.observed.values())]
    assert {str(each.dtype) for each in kept} == {network.dtype} == {str(jax.numpy.asarray(tree["w"]).dtype)}
    rule.step(X, Y)
    after = rule.state()
    rule.load_state(saved)
    rule.step(X, Y)
    assert all(np.array_equal(rule.state()[name], value) for name, value in after.items())


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_that_returns_more_than_one_array_is_refused(library: str) -> None:
    if library == "torch":
        import torch

        network: Any = TorchModel(torch.nn.RNN(5, 2))
    elif library == "tensorflow":
        import keras

        x = keras.Input((5,))
        network = KerasModel(keras.Model(x, [keras.layers.Dense(2)(x), x]))
    else:
        network = JaxModel(lambda p, x: (x @ p["w"], x), {"w": np.zeros((5, 2), np.float32)})
    with pytest.raises(DataError, match=r"must return \[batch, n_out\], in one array"):
        Evaluator(network).predict(X)


def test_leaves_of_a_jax_model_with_one_name_are_refused() -> None:
    pytest.importorskip("jax")
    one, other = np.zeros((5, 2), np.float32), np.ones((5, 2), np.float32)
    with pytest.raises(IncompatibleError, match=r"a\.b more than once"):
        JaxModel(lambda p, x: x @ p["a.b"], {"a.b": one, "a": {"b": other}})


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TorchModel("module"), "wraps a torch.nn.Module"),
        (lambda: KerasModel("model"), "wraps a keras.Model"),
        (lambda: JaxModel("function", {}), "wraps a function"),
        (lambda: JaxModel(len, {}), "none"),
        (lambda: Evaluator("network"), "TorchModel, KerasModel or JaxModel"),
    ],
)
def test_what_is_no_model_is_refused(make: Any, match: str) -> None:
    if len(LIBRARIES) < 3:
        pytest.skip("a library is not installed")
    with pytest.raises(IncompatibleError, match=match):
        make()


def test_a_fault_in_the_mode_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(TorchModel, "infer", TorchModel.forward)
    rule = BPTT(Evaluator(TorchModel(torch_module(torch.nn.BatchNorm1d(8)))))
    module = rule.model.network.module.eval()  # type: ignore[attr-defined]
    assert np.abs(rule.model.predict(X) - module(torch.from_numpy(X)).detach().numpy()).max() > 1e-2
