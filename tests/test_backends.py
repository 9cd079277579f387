"""The four backends keep the protocol, a fault in one is found, and others' backends are discovered."""

import importlib
import subprocess
import sys
import warnings

import numpy as np
import pytest

from neko_rules import backend as backend_module
from neko_rules.backend import (
    BUILT_IN,
    available,
    get_backend,
    given,
    global_norm,
    is_installed,
    log_softmax,
    shift_later,
)
from neko_rules.backends.numpy import NumpyBackend
from neko_rules.errors import BackendError
from neko_rules.testing import check_backend


def needs(name):
    return pytest.param(name, marks=pytest.mark.skipif(not is_installed(name), reason=f"{name} is not installed"))


ALL = [needs(name) for name in BUILT_IN]
DIFFERENTIATING = [needs(name) for name in BUILT_IN if name != "numpy"]


@pytest.fixture
def nx(request):
    return get_backend(request.param)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("name", ALL)
def test_conforms(name):
    check_backend(name)


@pytest.mark.parametrize("nx", ALL, indirect=True)
def test_what_is_given_to_a_compiled_function_keeps_its_type(nx):
    arrays = {"single": np.ones((2, 3), "float32"), "double": np.full((), 0.1), "whole": np.arange(3)}
    found = nx.jit(lambda tree: {name: 2 * each for name, each in tree.items()})(
        {name: given(nx, each) for name, each in arrays.items()}
    )
    for name, each in arrays.items():
        value = nx.to_numpy(found[name])
        assert value.dtype == each.dtype
        np.testing.assert_array_equal(value, 2 * each)
    narrow = nx.jit(lambda each: 2 * each)(given(nx, arrays["double"], "float32"))
    assert nx.to_numpy(narrow).dtype == np.float32


# Faults that the suite must find. Each was, or could be, somebody's honest mistake.


class LastOfTies(NumpyBackend):
    def argmax(self, array, axis):
        return array.shape[axis] - 1 - np.argmax(np.flip(array, axis), axis)


class ReversedOutputs(NumpyBackend):
    def scan(self, body, carry, inputs, length, reverse=False):
        carry, history = super().scan(body, carry, inputs, length, reverse)
        return carry, tuple(record[::-1] if reverse else record for record in history)


class NeverReverses(NumpyBackend):
    def scan(self, body, carry, inputs, length, reverse=False):
        return super().scan(body, carry, inputs, length)


class Upcasts(NumpyBackend):
    def exp(self, array):
        return np.exp(array.astype(np.float64))


class TypeOfNumbers(NumpyBackend):
    def where(self, condition, yes, no):
        return np.where(condition, np.asarray(yes), np.asarray(no))


class DropsKeepdims(NumpyBackend):
    def sum(self, array, axis=None, keepdims=False):
        return np.sum(array, axis=axis)


class FewDigits(NumpyBackend):
    def sigmoid(self, array):
        return 0.5 * (np.tanh(0.5 * array) + 1)


class LinearAboveTwenty(NumpyBackend):
    def softplus(self, array):
        return np.where(array > 15, array, np.logaddexp(array, np.zeros((), array.dtype)))


class SignOfZero(NumpyBackend):
    def sign(self, array):
        return np.where(array < 0, -1, 1).astype(array.dtype)


class ChangesItsArgument(NumpyBackend):
    def maximum(self, left, right):
        return np.maximum(left, right, out=left)


class LendsItsMemory(NumpyBackend):
    def to_numpy(self, array):
        return np.asarray(array)


class SmallOnly(NumpyBackend):
    """Wrong at the sizes where jaxlib 0.10.2 was."""

    def einsum(self, equation, *arrays):
        result = super().einsum(equation, *arrays)
        large = equation == "bka,bika->ik" and arrays[1].shape[0] * arrays[1].shape[1] >= 4096
        return 2 * result if large else result


class ThirtyTwoBits(NumpyBackend):
    def asarray(self, value, dtype=None):
        array = super().asarray(value, dtype)
        return array.astype(np.int32) if array.dtype == np.int64 else array


class RemembersTheFirstResult(NumpyBackend):
    def jit(self, function):
        results = {}
        return lambda *given: results.setdefault(str([getattr(g, "shape", 0) for g in given]), function(*given))


class SortsTrees(NumpyBackend):
    def jit(self, function):
        def as_lists(tree):
            if isinstance(tree, dict):
                return dict(tree)
            return [as_lists(branch) for branch in tree] if isinstance(tree, tuple) else tree

        def run(*given):
            result = function(*given)
            if isinstance(result, tuple) and isinstance(result[0], dict):
                return [{key: as_lists(branch) for key, branch in result[0].items()}, *result[1:]]
            return result

        return run


class ClaimsToDifferentiate(NumpyBackend):
    differentiates = True


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (LastOfTies, "argmax over axis 0"),
        (ReversedOutputs, "scan in reverse at real size"),
        (NeverReverses, "scan in reverse at real size"),
        (Upcasts, "exp, float32, shapes [(1, 1)]: type float64 instead of float32"),
        (TypeOfNumbers, "where with a number"),
        (DropsKeepdims, "sum over last axis, kept"),
        (FewDigits, "sigmoid"),
        (LinearAboveTwenty, "softplus, float64, shapes [(1, 1)]|softplus, compiled, float64"),
        (SignOfZero, "sign"),
        (ChangesItsArgument, "maximum, compiled, float32, shapes [(32, 256), (32, 256)]: changed its argument"),
        (LendsItsMemory, "to numpy gives a copy"),
        (SmallOnly, "einsum bka,bika->ik, compiled, float64, shapes [(512, 16, 3), (512, 8, 16, 3)]"),
        (ThirtyTwoBits, "asarray keeps the type of the contents"),
        (RemembersTheFirstResult, "jit with changing sizes and values"),
        (SortsTrees, "jit of nested dicts and tuples"),
        (ClaimsToDifferentiate, "gradient in closed form"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_finds_a_planted_fault(fault, named):
    with pytest.raises(AssertionError) as failure:
        check_backend(fault())
    assert any(part in str(failure.value) for part in named.split("|"))


def torch_faults():
    from neko_rules.backends.torch import TorchBackend

    class NoStop(TorchBackend):
        stop_gradient = staticmethod(lambda array: array)

    class Truncates(TorchBackend):
        def scan(self, body, carry, inputs, length, reverse=False):
            cut = lambda carry, step: body(tuple(array.detach() for array in carry), step)  # noqa: E731
            return super().scan(cut, carry, inputs, length, reverse)

    class OmitsUnused(TorchBackend):
        def value_and_grad(self, function):
            def differentiated(parameters):
                value, gradient = TorchBackend.value_and_grad(self, function)(parameters)
                return value, {name: array for name, array in gradient.items() if array.any()}

            return differentiated

    class NoGradientInside(TorchBackend):
        def jit(self, function):
            import torch

            def run(*given):
                with torch.inference_mode():
                    return function(*given)

            return run

    return {"NoStop": NoStop, "Truncates": Truncates, "OmitsUnused": OmitsUnused, "NoGradientInside": NoGradientInside}


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("NoStop", "spike is exact and has its surrogate derivative"),
        ("Truncates", "gradient through scan by central differences"),
        ("OmitsUnused", "gradient of an unused parameter is zero"),
        ("NoGradientInside", "gradient in closed form"),
    ],
)
def test_finds_a_planted_fault_in_derivatives(torch, fault, named):
    with pytest.raises(AssertionError, match=named):
        check_backend(torch_faults()[fault]())


def test_largest_difference_is_named():
    class Off(NumpyBackend):
        name = "off"

        def eye(self, size, dtype):
            return super().eye(size, dtype) * 1.25

    with pytest.raises(
        AssertionError, match=r"(?s)backend 'off' fails 4 checks.*eye, float64.*largest difference 0\.25"
    ):
        check_backend(Off())


# Finding backends.


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """A function that installs a third party's package which offers backends by entry points."""
    monkeypatch.setattr(backend_module, "_instances", {})
    monkeypatch.syspath_prepend(tmp_path)

    def install(module, code, **entries):
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[neko_rules.backends]", *lines, ""]))
        importlib.invalidate_caches()

    yield install
    for name in [name for name in sys.modules if name.startswith("third_party_")]:
        del sys.modules[name]


def test_entry_point_is_found_and_conforms(distribution):
    code = "from neko_rules.backends.numpy import NumpyBackend\nclass Mine(NumpyBackend):\n    name = 'mine'\n"
    distribution("third_party_good", code, mine="Mine")
    assert "mine" in available()
    assert is_installed("mine")
    assert get_backend("mine").name == "mine"
    assert get_backend("mine") is get_backend("mine")
    check_backend("mine")


def test_entry_point_with_a_fault_is_refused(distribution):
    code = (
        "from neko_rules.backends.numpy import NumpyBackend\n"
        "class Mine(NumpyBackend):\n"
        "    name = 'mine'\n"
        "    def arange(self, size, dtype):\n"
        "        return super().arange(size, dtype)[::-1]\n"
    )
    distribution("third_party_faulty", code, mine="Mine")
    with pytest.raises(AssertionError, match="arange"):
        check_backend("mine")


def test_entry_point_that_is_no_backend(distribution):
    distribution("third_party_empty", "class Nothing:\n    name = 'nothing'\n", nothing="Nothing")
    with pytest.raises(BackendError, match="it lacks description, differentiates, asarray"):
        get_backend("nothing")


def test_entry_point_does_not_replace_a_built_in(distribution):
    distribution("third_party_thief", "class Nothing:\n    pass\n", numpy="Nothing")
    assert isinstance(get_backend("numpy"), NumpyBackend)


@pytest.mark.parametrize("name", ["torch", "tensorflow", "jax"])
def test_missing_library_says_which_extra_to_install(name, monkeypatch):
    module, _, library = BUILT_IN[name]
    monkeypatch.setattr(backend_module, "_instances", {})
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(BackendError, match=rf"pip install 'neko_rules\[{name}\]'"):
        get_backend(name)
    assert not is_installed(name)


def test_another_missing_module_is_not_mistaken_for_the_library(monkeypatch):
    monkeypatch.setattr(backend_module, "_instances", {})
    monkeypatch.delitem(sys.modules, "neko_rules.backends.torch", raising=False)
    monkeypatch.setitem(BUILT_IN, "torch", ("neko_rules.backends.absent", "TorchBackend", "torch"))
    with pytest.raises(ModuleNotFoundError, match="absent"):
        get_backend("torch")


@pytest.mark.parametrize(
    ("name", "answer"),
    [("pytorch", "did you mean 'torch'"), *((name, "known: 'numpy', 'torch'") for name in ("zzz", "cupy"))],
)
def test_unknown_backend(name, answer):
    with pytest.raises(BackendError, match=answer):
        get_backend(name)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(device):
    pytest.importorskip("torch")
    from neko_rules.backends.torch import TorchBackend

    with pytest.raises(BackendError, match=f"received: '{device}', of which PyTorch says: .*use device='cpu'"):
        TorchBackend(device=device)


def test_object_without_the_operations():
    with pytest.raises(BackendError, match="it lacks name, description"):
        get_backend(3)


def test_backend_objects_by_name():
    from neko_rules import backends

    assert backends.numpy_backend is get_backend("numpy")
    with pytest.raises(AttributeError):
        backends.nothing_backend  # noqa: B018


def test_testing_imports_no_array_library():
    code = (
        "import sys, neko_rules.testing;"
        "print([m for m in ('pytest', 'torch', 'tensorflow', 'jax', 'scipy') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# Several libraries in one process.


def network(nx, dtype):
    """A recurrent layer with softmax readout on given numbers, compiled: its log probabilities."""
    rng = np.random.default_rng(5)
    x, V = rng.normal(size=(30, 8, 16)).astype(dtype), (rng.normal(size=(16, 16)) / 8).astype(dtype)

    def run(x, V):
        def body(carry, step):
            state = nx.tanh(0.9 * carry[0] + nx.matmul(carry[0], V) + step[0])
            return (state,), (state,)

        _, (history,) = nx.scan(body, (nx.full((8, 16), 0.0, dtype),), (x,), 30)
        return log_softmax(nx, shift_later(nx, history)), global_norm(nx, {"V": V})

    return [nx.to_numpy(array) for array in nx.jit(run)(nx.asarray(x), nx.asarray(V))]


def test_several_backends_in_one_process():
    names = [name for name in BUILT_IN if is_installed(name)]
    results = [
        {name: network(get_backend(name), dtype) for name in names} for dtype in ("float32", "float64", "float32")
    ]
    for outcome, dtype in zip(results, ("float32", "float64", "float32"), strict=True):
        for name in names:
            for got, expected in zip(outcome[name], outcome["numpy"], strict=True):
                assert got.dtype == dtype
                np.testing.assert_allclose(got, expected, rtol=1e-12 if dtype == "float64" else 1e-4)


@pytest.mark.parametrize("nx", DIFFERENTIATING, indirect=True)
def test_value_and_grad_returns_arrays_without_history(nx):
    value, gradient = nx.value_and_grad(lambda p: nx.sum(p["w"] * p["w"]))({"w": nx.asarray([3.0], "float32")})
    assert nx.to_numpy(value) == 9
    assert np.asarray(gradient["w"]) == 6  # torch refuses this where a graph is attached


@pytest.mark.parametrize("nx", [needs("tensorflow"), needs("jax")], indirect=True)
def test_traced_once_per_shape(nx):
    traces = []

    def function(tree):
        traces.append(1)
        return tree["x"] * 2.0

    compiled = nx.jit(function)
    for batch in (3, 3, 2, 3, 2):
        for value in (1.0, 2.0):
            result = compiled({"x": np.full((batch, 2), value, np.float32)})
            np.testing.assert_array_equal(nx.to_numpy(result), np.full((batch, 2), 2 * value))
    assert len(traces) == 2


def test_jax_keeps_the_default_types_of_the_process():
    jax = pytest.importorskip("jax")
    nx = get_backend("jax")
    doubled = nx.jit(lambda x: 2.0 * x)(nx.asarray([0.1]))
    assert nx.to_numpy(doubled).dtype == np.float64
    assert nx.to_numpy(doubled)[0] == 0.2
    assert not jax.config.jax_enable_x64
    assert jax.numpy.asarray([1.0]).dtype == np.float32
    assert jax.numpy.arange(3).dtype == np.int32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jax.numpy.ones(2).dtype == np.float32


def test_torch_threads_are_limited_inside_and_restored(torch):
    from neko_rules.backends.torch import TorchBackend

    nx, before, seen = TorchBackend(threads=1), torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        nx.jit(lambda: seen.append((torch.get_num_threads(), torch.is_grad_enabled())))()
        assert seen == [(1, False)]
        assert torch.get_num_threads() == 2
        assert torch.is_grad_enabled()
        with pytest.raises(ZeroDivisionError):
            nx.jit(lambda: 1 / 0)()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_torch_gradient_of_a_scan_costs_linear_time(torch):
    """Indexing array[t] step by step makes a tensor of the whole array's size per step in the backward pass."""
    from torch.utils._python_dispatch import TorchDispatchMode

    nx, time = get_backend("torch"), 40
    whole = []

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.numel() >= 3 * time:
                whole.append(func)
            return result

    def scanned(p):
        body = lambda carry, step: ((carry[0] * 0.5 + step[0],), (carry[0] + step[0],))  # noqa: E731
        _, (history,) = nx.scan(body, (nx.full((3,), 0.0, "float64"),), (p["x"],), time)
        return nx.sum(history * history)

    def indexed(p):
        state, total = nx.full((3,), 0.0, "float64"), 0.0
        for t in range(time):
            total = total + nx.sum((state + p["x"][t]) ** 2)
            state = state * 0.5 + p["x"][t]
        return total

    counts = {}
    for function in (scanned, indexed):
        whole.clear()
        with Largest():
            nx.value_and_grad(function)({"x": nx.full((time, 3), 1.0, "float64")})
        counts[function] = len(whole)
    assert counts[indexed] > time  # what is avoided does show up in this count
    assert counts[scanned] < 20
