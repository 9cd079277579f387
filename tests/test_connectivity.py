"""Connectivity: sparse connections are dense ones with zeros that no rule, sampler or device ever changes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from credit_cases import HOLDING, alive, data, network_of

import neko_rules
from neko_rules import (
    ALIF,
    BPTT,
    LIF,
    RTRL,
    SPSA,
    Connection,
    Crossbar,
    EProp,
    Evaluator,
    FeedbackAlignment,
    KolenPollack,
    Layer,
    Manhattan,
    Network,
    NodePerturbation,
    Posterior,
    Rule,
    SignSymmetric,
    SnAp,
    Stack,
    TikiTaka,
    WeightMirror,
    on_crossbar,
)
from neko_rules.chains import running
from neko_rules.errors import ArgumentError, CheckpointError, ConfigurationError, IncompatibleError
from neko_rules.experiments.run import run
from neko_rules.layers.connectivity import CONNECTIVITIES, Connectivity, Dense, Mask, ReceptiveFields, connectivity
from neko_rules.layers.rate import TanhCell
from neko_rules.rules import RULES

GIVEN: dict[str, dict[str, Any]] = {
    "sparse": {"probability": 0.3},
    "fixed_in_degree": {"number": 3},
    "receptive_fields": {"shape": [4, 5], "window": [2, 3], "stride": [2, 1]},
    "convolution": {"shape": [4, 5], "filters": 2, "window": 2},
    "pooled_dense": {"shape": [4, 5], "neurons": 24},
    "mask": {"synapses": np.arange(20 * 24).reshape(20, 24) % 3 == 0},
}
"""Arguments of those that need some; for 20 sources and 24 targets, but one to one."""


def sizes(name: str) -> tuple[int, int]:
    return (20, 20) if name == "one_to_one" else (20, 24)


def drawn(name: str, seed: int = 0) -> np.ndarray:
    chosen = CONNECTIVITIES.create(name, GIVEN.get(name, {}))
    return Connection("a", "b", connectivity=chosen, connectivity_seed=seed).synapses(*sizes(name))


# Which synapses there are.


@pytest.mark.parametrize("name", list(CONNECTIVITIES))
def test_every_connectivity_gives_a_mask_that_the_seed_decides(name: str) -> None:
    found = drawn(name)
    assert found.dtype == bool
    assert found.shape == sizes(name)
    assert np.array_equal(found, drawn(name))
    assert found.any()
    assert found.all() == (name == "dense")
    # Two masks of 20 by 24 that agree everywhere by chance: below 1e-100.
    assert np.array_equal(found, drawn(name, seed=1)) == (name not in ("sparse", "fixed_in_degree"))
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = True


def test_a_probability_is_the_mean_of_independent_synapses() -> None:
    found = Connection("a", "b", connectivity=0.2).synapses(300, 400)
    # Binomial: five standard deviations, false alarms 6e-7 each.
    assert abs(found.mean() - 0.2) < 5 * np.sqrt(0.2 * 0.8 / found.size)
    for axis, number in ((0, 300), (1, 400)):
        spread = found.sum(axis=axis).var() / (number * 0.2 * 0.8)
        assert 0.6 < spread < 1.5, "rows and columns are no more alike than chance makes them"


def test_a_number_of_inputs_within_a_population_is_one_of_others() -> None:
    found = Connection("a", "a", delay=1, connectivity={"name": "fixed_in_degree", "number": 3}).synapses(20, 20)
    assert not found.diagonal().any()
    assert set(found.sum(axis=0)) == {3}
    every = Connection("a", "a", delay=1, connectivity={"name": "fixed_in_degree", "number": 19}).synapses(20, 20)
    assert np.array_equal(every, ~np.eye(20, dtype=bool))
    with pytest.raises(ArgumentError, match=r"than there are \(received: number=20 of 19\)"):
        Connection("a", "a", delay=1, connectivity={"name": "fixed_in_degree", "number": 20}).synapses(20, 20)
    with_itself = Connection("a", "a", 1, autapses=True, connectivity={"name": "fixed_in_degree", "number": 20})
    assert with_itself.synapses(20, 20).all()


@pytest.mark.parametrize("given", ["one_to_one", np.eye(6)])
def test_synapses_of_neurons_with_themselves_need_autapses(given: Any) -> None:
    """Without, there would be no synapse at all, of which nothing in a run would tell."""
    with pytest.raises(ArgumentError, match=r"'hidden\.recurrent\.weight': .* are autapses .*autapses=False"):
        LIF(6, 2, inputs=3, recurrent_connectivity=given)
    network = LIF(6, 2, inputs=3, recurrent_connectivity=given, autapses=True)
    assert np.array_equal(network.synapses["hidden.recurrent.weight"], np.eye(6))


def test_receptive_fields_are_the_windows_of_a_convolution() -> None:
    """Against a correlation by hand, of two pictures and three filters."""
    fields = ReceptiveFields((5, 6), window=(3, 2), stride=(2, 2), channels=2)
    assert fields.places == (2, 3)
    mask = fields.mask(np.random.default_rng(0), 2 * 30, 3 * 6)
    for target in range(18):
        row, column = divmod(target % 6, 3)
        picture = np.zeros((2, 5, 6), bool)
        picture[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 2] = True
        assert np.array_equal(mask[:, target], picture.ravel())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: connectivity(0.0), "probability must be a finite number above 0"),
        (lambda: connectivity(1.5), "probability must be"),
        (lambda: connectivity(True), "a connectivity must be a name"),
        (lambda: connectivity("spars"), "did you mean 'sparse'"),
        (lambda: connectivity([[0, 2], [1, 1]]), "a matrix [source, target] of zeros and ones"),
        (lambda: connectivity([0, 1]), "a matrix [source, target] of zeros and ones"),
        (lambda: connectivity({"name": "mask", "synapses": "nowhere.npy"}), "a mask cannot be read"),
        (lambda: connectivity({"name": "fixed_in_degree", "number": 0}), "number must be a whole number"),
        (lambda: ReceptiveFields((4, 4), window=5), "a window must fit into the picture"),
        (lambda: ReceptiveFields((4, 4, 4)), "shape must be one number or two"),
        (lambda: ReceptiveFields((4, 4), window=None), "window must be a whole number"),  # type: ignore[arg-type]
        (lambda: ReceptiveFields((4, 4), window=2.0), "window must be a whole number"),  # type: ignore[arg-type]
        (lambda: ReceptiveFields("44"), "shape must be a whole number"),
        (lambda: connectivity([[0, 1], [1]]), "a matrix [source, target] of zeros and ones"),
        (lambda: connectivity(np.full((1, 2), np.nan)), "a matrix [source, target] of zeros and ones"),
        (lambda: Connection("a", "b", connectivity_seed=-1), "connectivity_seed must be"),
        (lambda: LIF(4, 2, inputs=3, connectivity="one_to_one"), "one to one takes populations of one size"),
        (
            lambda: LIF(4, 2, inputs=3, connectivity={"name": "fixed_in_degree", "number": 4}),
            "a neuron cannot receive from more neurons than there are",
        ),
        (
            lambda: LIF(4, 2, inputs=3, connectivity=np.ones((2, 2))),
            "must give a mask of zeros and ones of shape (3, 4)",
        ),
        (lambda: LIF(9, 2, inputs=15, connectivity=ReceptiveFields((4, 4), 2)), "have 16 inputs"),
        (lambda: LIF(10, 2, inputs=16, connectivity=ReceptiveFields((4, 4), 2)), "a multiple of 9"),
    ],
)
def test_what_is_no_connectivity_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError) as refusal:
        make()
    assert message in str(refusal.value)


def test_masks_are_equal_if_their_synapses_are() -> None:
    one, other = Mask([[0, 1]]), Mask(np.array([[False, True]]))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Mask([[1, 1]])
    assert connectivity("all_to_all") == Dense()


def test_a_mask_from_a_file(tmp_path: Path) -> None:
    synapses = np.random.default_rng(0).random((3, 4)) < 0.5
    np.save(tmp_path / "mask.npy", synapses)
    network = LIF(4, 2, inputs=3, connectivity={"name": "mask", "synapses": str(tmp_path / "mask.npy")})
    assert np.array_equal(network.synapses["hidden.input.weight"], synapses)


@pytest.mark.parametrize("content", [b"", b"0 1\n1 0\n", "npz", "pickled", "cut"])
def test_a_file_that_holds_no_mask_is_refused(content: bytes | str, tmp_path: Path) -> None:
    """An end of the file that nobody expects would end a program as Ctrl-C does, and an archive is no array."""
    path = tmp_path / "mask.npy"
    if content == "npz":
        with path.open("wb") as file:
            np.savez(file, mask=np.eye(2))
    elif content == "pickled":
        np.save(path, np.array([[1, None]], object), allow_pickle=True)
    elif content == "cut":
        np.save(path, np.eye(2))
        path.write_bytes(path.read_bytes()[:-8])
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)
    with pytest.raises(ArgumentError, match=r"a mask (is read from a file that numpy\.save wrote|cannot be read)"):
        Mask(path)


def other_libraries() -> dict[str, Callable[[np.ndarray], Any]]:
    import jax.numpy as jnp
    import scipy.sparse
    import tensorflow as tf
    import torch

    return {
        "torch": torch.tensor,
        "differentiable": lambda synapses: torch.tensor(synapses.astype(float), requires_grad=True),
        "tensorflow": tf.constant,
        "jax": jnp.asarray,
        "sparse matrix": scipy.sparse.csr_matrix,
        "sparse array": lambda synapses: scipy.sparse.coo_array(synapses.astype(int)),
        "lists": lambda synapses: synapses.tolist(),
    }


def test_a_mask_may_be_a_matrix_of_any_library() -> None:
    synapses = np.random.default_rng(0).random((3, 4)) < 0.5
    for name, made in other_libraries().items():
        assert connectivity(made(synapses)) == Mask(synapses), name
        assert connectivity({"name": "mask", "synapses": made(synapses)}) == Mask(synapses), name


def test_numbers_of_numpy_are_numbers() -> None:
    assert connectivity(np.float32(0.5)) == connectivity(0.5)
    fields = ReceptiveFields(np.array([5, 6]), window=np.int64(3))
    assert fields == ReceptiveFields((5, 6), window=3)


class Ring(Connectivity):
    """Every neuron reaches the next."""

    def draw(self, rng: np.random.Generator, sources: int, targets: int) -> np.ndarray:
        return np.roll(np.eye(sources, targets), 1, axis=1)


def test_a_connectivity_of_a_user_s() -> None:
    network = LIF(5, 2, inputs=3, recurrent_connectivity=Ring())
    assert np.array_equal(network.synapses["hidden.recurrent.weight"], np.roll(np.eye(5), 1, axis=1))


# First weights.


def test_the_seed_of_the_network_draws_synapses_and_weights() -> None:
    def made(seed: int, **options: Any) -> np.ndarray:
        found = LIF(30, 2, inputs=20, seed=seed, connectivity=0.3, backend="numpy", **options)
        assert np.array_equal(found.parameters["hidden.input.weight"] != 0, found.synapses["hidden.input.weight"])
        return found.synapses["hidden.input.weight"]

    assert np.array_equal(made(0), made(0))
    assert not np.array_equal(made(0), made(1))
    pinned = [
        Network(
            {"hidden": {"cell": "lif", "size": 30}},
            [{"source": "input", "target": "hidden", "connectivity": 0.3, "connectivity_seed": 7}],
            "hidden", inputs=20, seed=seed,
        ).synapses["hidden.from_input.weight"]
        for seed in (0, 1)
    ]  # fmt: skip
    assert np.array_equal(*pinned)


def test_weights_of_few_synapses_are_larger() -> None:
    """The variance of a neuron's summed input is that of all to all; a constant stays what it is."""
    dense, sparse = (
        LIF(200, 2, inputs=400, connectivity=each).parameters["hidden.input.weight"] for each in (1.0, 0.1)
    )
    power = (sparse**2).sum(axis=0).mean(), (dense**2).sum(axis=0).mean()
    # Means over 200 neurons of sums of 40 and of 400 squares: standard deviations 0.016 and 0.005.
    assert power == pytest.approx((1.0, 1.0), abs=0.1)
    constant = LIF(6, 2, inputs=9, connectivity=0.5, initializer={"name": "constant", "value": 0.2})
    assert set(np.unique(constant.parameters["hidden.input.weight"].round(6))) == {np.float32(0), np.float32(0.2)}


# What no rule changes.


def sparse(backend: str = "numpy") -> Network:
    return network_of("sparse", backend)


def absent(network: Network) -> dict[str, np.ndarray]:
    found = {name: ~mask for name, mask in network.synapses.items() if not mask.all()}
    assert len(found) == 5, "every connection of the case is sparse"
    return found


def clear(found: Any, network: Network) -> bool:
    return all(not np.count_nonzero(found[name][where]) for name, where in absent(network).items())


@pytest.mark.parametrize("rule", list(RULES))
def test_no_rule_has_a_gradient_or_makes_a_change_where_there_is_no_synapse(rule: str) -> None:
    """On NumPy; that the other libraries agree, also on sparse networks, is what the matrix of rules proves."""
    network, (x, y) = sparse(), data(batch=3, steps=6)
    try:
        made = RULES[rule](Evaluator(network), **HOLDING.get(rule, {}))
    except IncompatibleError:
        made = RULES[rule](Evaluator(LIF(6, 3, inputs=4, connectivity=0.5, dtype="float64")))
        network = made.model.network
    absent = {name: ~mask for name, mask in network.synapses.items() if not mask.all()}
    before, found = network.parameters, made.gradients(x, y)
    for step in range(200):
        made.step(x, y)
        after = network.parameters
        # Tiki-Taka sends nothing to the weights before its fast array has moved far enough.
        if step and any(np.any(after[name] != before[name]) for name in absent):
            break
    else:
        pytest.fail("nothing has changed")
    for name, where in absent.items():
        assert where.any()
        assert not np.count_nonzero(found[name][where]), name
        assert not np.count_nonzero(after[name][where]), name


LOCAL = ("bptt", "truncated_bptt", "eprop", "ostl", "rtrl", "pp_prop", "decolle", "uoro", "event_prop")


@pytest.mark.parametrize("rule", LOCAL)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_gradients_are_those_of_a_dense_network_with_zeros(rule: str, backend: str) -> None:
    x, y = data(batch=3, steps=8)
    cells = {"layers": ["lif", "lif"]} if rule != "event_prop" else {"layers": ["lif"]}

    def gradients(*fractions: Any) -> tuple[dict[str, np.ndarray], Network]:
        strong = {"name": "scaled_normal", "gain": 1.5}
        layers = [
            Layer(
                cell, 7, initializer=strong, recurrent_initializer=strong, connectivity=one, recurrent_connectivity=two
            )
            for cell, one, two in zip(cells["layers"], fractions[:2], fractions[2:], strict=False)
        ]
        network = Stack(layers, 3, inputs=4, backend=backend, dtype="float64", seed=4)
        if values:
            network.set_parameters(values)
        model = Evaluator(network)
        alive(model, x)
        return RULES[rule](model).gradients(x, y), network

    values: dict[str, np.ndarray] = {}
    found, network = gradients(0.6, 0.5, 0.4, 0.5)
    values = network.parameters
    expected, _ = gradients("dense", "dense", "dense", "dense")
    for name, value in expected.items():
        wanted = value * network.synapses.get(name, 1)
        assert np.abs(wanted).max() > 1e-8
        np.testing.assert_allclose(found[name], wanted, rtol=1e-9, atol=1e-13, err_msg=name)


STEPPED: dict[str, Callable[[Evaluator], Rule]] = {
    "BPTT": BPTT,
    "BPTT, decay, clipping": lambda m: BPTT(m, weight_decay=1e-2, clipping={"name": "global_norm", "limit": 0.5}),
    "BPTT, penalties": lambda m: BPTT(m, regularizers=["firing_rate"]),
    "e-prop": EProp,
    "e-prop, online": lambda m: EProp(m, online=True),
    "e-prop, every 4": lambda m: EProp(m, online=4),
    "e-prop, every 4, momentum": lambda m: EProp(m, online=4, optimizer="momentum"),
    "feedback alignment": FeedbackAlignment,
    "Kolen-Pollack": KolenPollack,
    "weight mirror": WeightMirror,
    "sign-symmetric": SignSymmetric,
    "SnAp-2": lambda m: SnAp(m, reach=2),
    "RTRL": RTRL,
    "node perturbation": NodePerturbation,
}


@pytest.mark.parametrize(
    ("rule", "backend"), [*((rule, "numpy") for rule in STEPPED), ("e-prop", "torch"), ("e-prop, every 4", "jax")]
)
def test_steps_by_loops_are_those_by_operations(rule: str, backend: str) -> None:
    """Several, since those at hand and in chains come after the first."""
    x, y = data(batch=5, steps=12)

    def stepped() -> tuple[Network, dict[str, np.ndarray]]:
        network = sparse(backend)
        made = STEPPED[rule](Evaluator(network))
        for _ in range(4):
            made.step(x, y)
        return network, made.state()

    network, found = stepped()
    with neko_rules.by_library():
        _, expected = stepped()
    assert clear(network.parameters, network)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-11, err_msg=name)
    feedback = {name: value for name, value in found.items() if name.startswith("feedback/")}
    for name, value in feedback.items():
        where = absent(network)[name.removeprefix("feedback/")]
        assert value.shape == where.shape
        assert not np.count_nonzero(value[where]), "feedback goes along the synapses"


@pytest.mark.parametrize("rule", ["BPTT", "e-prop, every 4"])
def test_what_is_stored_where_there_is_no_synapse_has_no_effect(
    rule: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor with chains, and in steps that have them at hand."""
    monkeypatch.setattr(running, "WORTHWHILE", 0)
    x, y = data(batch=3, steps=12)
    found = []
    for value in (0.0, 5.0):
        network = sparse(backend)
        values = network.parameters
        network.set_parameters({name: np.where(where, value, values[name]) for name, where in absent(network).items()})
        made = STEPPED[rule](Evaluator(network))
        figures = [made.step(x, y)["loss"] for _ in range(3)]
        found.append((figures, {name: np.where(w, 0, network.parameters[name]) for name, w in absent(network).items()}))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-12)
    for name, value in found[0][1].items():
        np.testing.assert_allclose(value, found[1][1][name], rtol=1e-9, atol=1e-12)


def test_the_gradient_of_a_smooth_network_is_the_difference_quotient() -> None:
    x, y = data(batch=3, steps=6)
    cell = TanhCell(membrane_decay=0.6)
    network = Stack(
        [Layer(cell, 6, connectivity=0.6, recurrent_connectivity=0.5)], 3, inputs=4, dtype="float64", seed=1
    )
    model = Evaluator(network)
    found, values, h = BPTT(model).gradients(x, y), network.parameters, 1e-5
    for name in ("hidden.input.weight", "hidden.recurrent.weight"):
        for i, j in np.argwhere(network.synapses[name]):
            losses = []
            for sign in (1, -1):
                moved = values[name].copy()
                moved[i, j] += sign * h
                network.set_parameters({name: moved})
                losses.append(model.evaluate(x, y)["loss"])
            network.set_parameters(values)
            assert found[name][i, j] == pytest.approx((losses[0] - losses[1]) / (2 * h), rel=1e-6, abs=1e-9)


def test_snap_n_climbs_to_rtrl_along_the_synapses() -> None:
    """On a ring of six neurons, of which the first alone hears the input: what a weight reaches grows with n."""
    x, y = data(batch=2, steps=9)

    def made(rule: Callable[[Evaluator], Rule]) -> dict[str, np.ndarray]:
        network = Stack(
            [Layer(TanhCell(membrane_decay=0.5), 6, recurrent_connectivity=Ring())],
            3,
            inputs=4,
            dtype="float64",
            seed=2,
        )
        return rule(Evaluator(network)).gradients(x, y)

    truth = made(RTRL)["hidden.input.weight"]
    errors = []
    for n in range(1, 7):
        found = made(lambda model, n=n: SnAp(model, reach=n))["hidden.input.weight"]
        errors.append(np.abs(found - truth).max() / np.abs(truth).max())
    assert errors[5] < 1e-12
    assert all(error > 1e-6 for error in errors[:5])
    assert errors == sorted(errors, reverse=True)


def test_streams_leave_what_is_no_synapse_alone(backend: str) -> None:
    network, (x, y) = sparse(backend), data(batch=1, steps=12)
    learner = EProp(Evaluator(network), online=True).stream(batch_size=1)
    before = network.parameters["hidden0.recurrent.weight"]
    for step in x[0]:
        learner.observe(step, int(y[0]))
    assert np.any(network.parameters["hidden0.recurrent.weight"] != before)
    assert clear(network.parameters, network)


def test_spsa_moves_synapses_alone() -> None:
    network, (x, y) = sparse(), data()
    found = SPSA(Evaluator(network)).gradients(x, y)
    assert clear(found, network)
    assert all(np.count_nonzero(found[name]) == (~where).sum() for name, where in absent(network).items())


CROSSBAR = {"device": {"name": "idealized", "read_noise": 0.1}, "w_max": 9.0}


def test_a_crossbar_shows_synapses_alone(tmp_path: Path) -> None:
    shown = on_crossbar(sparse(), Crossbar(**CROSSBAR))
    assert clear(shown.parameters, shown)
    shown.save(tmp_path / "weights.safetensors")
    sparse().load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("rule", [Manhattan, TikiTaka])
def test_devices_without_a_synapse_are_not_seen(rule: Any) -> None:
    network, (x, y) = sparse(), data()
    made = rule(Evaluator(network), crossbar=CROSSBAR)
    for _ in range(3):
        made.step(x, y)
        assert clear(network.parameters, network)


def test_a_posterior_has_as_many_dimensions_as_there_are_synapses() -> None:
    network = sparse()
    posterior = Posterior(Evaluator(network))
    synapses = sum(int(mask.sum()) for mask in network.synapses.values())
    biases = sum(value.size for name, value in network.parameters.items() if name.endswith("bias"))
    assert posterior.dimension == synapses + biases
    vector = np.random.default_rng(0).standard_normal(posterior.dimension)
    assert clear(posterior.parameters(vector), network)
    assert np.array_equal(posterior.vector(posterior.parameters(vector)), vector)


# Networks that are copied, moved, saved and read.


def test_copies_have_the_same_synapses() -> None:
    network = sparse()
    for other in (network.clone(), network.on("torch"), pickle.loads(pickle.dumps(network))):
        for name, mask in network.synapses.items():
            assert np.array_equal(other.synapses[name], mask)


def test_weights_of_other_synapses_are_refused(tmp_path: Path) -> None:
    path, saved = tmp_path / "weights.safetensors", ALIF(8, 2, inputs=5, recurrent_connectivity=0.5, seed=1)
    saved.save(path)
    ALIF(8, 2, inputs=5, recurrent_connectivity=0.5, seed=1).load(path)
    ALIF(8, 2, inputs=5, seed=2).load(path)
    other = ALIF(8, 2, inputs=5, recurrent_connectivity=0.5, seed=2)
    with pytest.raises(ArgumentError, match=r"hidden\.recurrent\.weight has weights where there is no synapse here"):
        other.load(path)
    state = BPTT(Evaluator(saved)).state()
    with pytest.raises((ArgumentError, CheckpointError), match="no synapse here"):
        BPTT(Evaluator(other)).load_state(state)


CONFIG = """
name: sparse
backend: numpy
data: {name: delayed_xor, train_examples: 32, test_examples: 16}
model:
  name: LIF
  hidden: 12
  outputs: 2
  connectivity: 0.5
  recurrent_connectivity: {name: fixed_in_degree, number: 3}
rule: {name: eprop}
train: {epochs: 1, batch_size: 16}
"""


def test_a_run_keeps_the_synapses_of_its_seed(tmp_path: Path) -> None:
    (tmp_path / "sparse.yaml").write_text(CONFIG)
    weights = []
    for seed in (0, 1):
        run(tmp_path / "sparse.yaml", seed=seed, out=tmp_path / str(seed), progress=False)
        few = {"name": "fixed_in_degree", "number": 3}
        network = LIF(12, 2, inputs=40, connectivity=0.5, recurrent_connectivity=few, seed=seed)
        network.load(tmp_path / str(seed) / "weights.safetensors")
        weights.append(network.parameters["hidden.recurrent.weight"] != 0)
        assert weights[-1].sum(axis=0).max() <= 3
    assert not np.array_equal(*weights)


@pytest.mark.parametrize("value", ["2.0", "{name: sparse}", "[[0, 3]]", "{name: spars, probability: 0.1}"])
def test_a_configuration_with_no_connectivity_is_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "sparse.yaml").write_text(CONFIG.replace("connectivity: 0.5", f"connectivity: {value}"))
    with pytest.raises(ConfigurationError):
        run(tmp_path / "sparse.yaml", out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_mask_of_another_size_is_a_mistake_in_the_model(tmp_path: Path) -> None:
    """Its numbers are known when the data are: these are not what is wrong."""
    (tmp_path / "sparse.yaml").write_text(CONFIG.replace("connectivity: 0.5", "connectivity: [[0, 1], [1, 0]]"))
    with pytest.raises(ConfigurationError, match=r"^in 'model': in 'hidden\.input\.weight': Mask must give a mask"):
        run(tmp_path / "sparse.yaml", out=tmp_path / "run", progress=False)


def test_the_configuration_of_a_run_with_a_mask_runs_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("mask.npy", np.random.default_rng(0).random((40, 12)) < 0.5)
    given = "connectivity: {name: mask, synapses: mask.npy}"
    Path("sparse.yaml").write_text(CONFIG.replace("connectivity: 0.5", given))
    run(Path("sparse.yaml"), out=Path("run"), progress=False)
    monkeypatch.chdir(tmp_path / "run")
    run(Path("config.yaml"), out=Path("again"), progress=False)
    first, second = (Path(each, "weights.safetensors").read_bytes() for each in (".", "again"))
    assert first == second
