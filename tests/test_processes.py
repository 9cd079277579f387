"""Processes: what is sent to them is the rule itself, with a backend of the user's own as it is, or is refused."""

import pickle
import threading

import numpy as np
import pytest
from posterior_cases import spiking, spiking_data

from neko_rules import MALA, EProp, Posterior, Trainer
from neko_rules.backend import get_backend
from neko_rules.backends.numpy import NumpyBackend
from neko_rules.errors import IncompatibleError
from neko_rules.probabilistic.processes import packed

X, Y = spiking_data(8)
RUN = {"draws": 4, "warmup": 4, "chains": 2}


class Doubling(NumpyBackend):
    """A user's own operations under a name that is another's."""

    def __init__(self, factor=2.0):
        self.factor = factor

    def exp(self, array):
        return self.factor * super().exp(array)


def rule_of(nx):
    model = spiking(backend=nx)
    return MALA(Posterior(model, prior_scale=1.0), gradient=EProp(model, mode="random"))


def same(one, other):
    return all(np.array_equal(a.draws, b.draws) for a, b in zip(one.records, other.records, strict=True))


def test_a_backend_of_a_users_own_goes_with_its_rule():
    rule = rule_of(Doubling(3.0))
    rule.gradient.step(X, Y)
    twin = pickle.loads(packed(rule, rule.model.nx))
    assert type(twin.model.nx) is Doubling
    assert twin.model.nx.factor == 3.0
    assert twin.gradient.nx is twin.model.nx
    alone = Trainer(rule_of(Doubling(3.0))).sample(X, Y, **RUN)
    assert same(Trainer(rule_of(Doubling(3.0))).sample(X, Y, **RUN, processes=2), alone)
    assert not same(Trainer(rule_of(Doubling(1.0))).sample(X, Y, **RUN), alone)


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_the_backend_of_a_name_goes_by_it(name):
    pytest.importorskip(name)
    rule = rule_of(name)
    assert pickle.loads(packed(rule)).model.nx is get_backend(name)


def test_options_of_a_backend_go_with_it():
    pytest.importorskip("torch")
    from neko_rules.backends.torch import TorchBackend

    nx = TorchBackend(threads=3)
    rule = rule_of(nx)
    rule.gradient.step(X, Y)
    twin = pickle.loads(packed([rule, nx, nx.asarray(np.arange(3.0))], nx))
    assert twin[0].model.nx is twin[1] is not get_backend("torch")
    assert twin[1].threads == 3
    np.testing.assert_array_equal(twin[1].to_numpy(twin[2]), np.arange(3.0))


def test_arrays_are_made_anew_by_the_backend_they_are_of():
    jax = pytest.importorskip("jax")
    nx = get_backend("jax")
    restored = pickle.loads(packed({"a": nx.asarray(np.full(2, 1 / 3))}))["a"]
    assert isinstance(restored, jax.Array)
    np.testing.assert_array_equal(nx.to_numpy(restored), np.full(2, 1 / 3))


def test_what_cannot_be_sent_is_refused_before_a_process_begins():
    nx = Doubling()
    nx.lock = threading.Lock()
    with pytest.raises(IncompatibleError, match=r"Python can pickle it \(received: .*lock.*use processes=1"):
        Trainer(rule_of(nx)).sample(X, Y, **RUN, processes=2)
    assert Trainer(rule_of(nx)).sample(X, Y, **RUN).chains == 2

    class Local(Doubling):
        pass

    with pytest.raises(IncompatibleError, match="at the top of a module"):
        packed(Local())
