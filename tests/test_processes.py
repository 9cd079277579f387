"""Processes: what is sent to them is the rule itself, with a backend of the user's own as it is, or is refused."""

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from posterior_cases import Doubling, spiking, spiking_data

from neko_rules import MALA, EProp, Evaluator, JaxModel, Posterior, TorchModel, Trainer
from neko_rules.backend import get_backend
from neko_rules.errors import IncompatibleError
from neko_rules.probabilistic.processes import packed

X, Y = spiking_data(8)
RUN = {"draws": 4, "warmup": 4, "chains": 2}


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


def test_a_module_of_torch_keeps_its_parameters():
    torch = pytest.importorskip("torch")
    layers = [torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Tanh(), torch.nn.Linear(3, 1)]
    model = Evaluator(TorchModel(torch.nn.Sequential(*layers).double(), task_type="regression"), loss="poisson")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 2)), rng.poisson(2.0, size=(10, 1)).astype(float)
    rule = MALA(Posterior(model, fixed=["0.weight"]))
    alone = Trainer(rule).sample(x, y, **RUN)
    assert same(Trainer(rule).sample(x, y, **RUN, processes=2), alone)
    twin = pickle.loads(packed(rule))
    assert list(twin.model.network.values) == list(model.network.values)
    half = torch.ones(2, dtype=torch.bfloat16)
    assert pickle.loads(packed({"half": half, "own": torch.nn.Parameter(half)}))["own"].requires_grad


def test_parameters_of_a_jax_model_stay_doubles():
    pytest.importorskip("jax")
    nx = get_backend("jax")
    weight = nx.asarray(np.full((2, 1), 1 / 3))
    model = Evaluator(JaxModel(linear, {"weight": weight}, task_type="regression", inputs=2))
    twin = pickle.loads(packed(MALA(Posterior(model))))
    np.testing.assert_array_equal(twin.model.network.parameters["weight"], np.full((2, 1), 1 / 3))


def linear(parameters, x):
    return x @ parameters["weight"]


WITHOUT_A_GUARD = """
import sys
sys.path.insert(0, {tests!r})
from test_processes import RUN, X, Y, rule_of
from neko_rules import Trainer
Trainer(rule_of("numpy")).sample(X, Y, **RUN, processes=2)
"""


def test_a_program_without_its_guard_is_told_of_it(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(WITHOUT_A_GUARD.format(tests=str(Path(__file__).parent)))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert 'within `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
