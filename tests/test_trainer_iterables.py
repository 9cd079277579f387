"""Training on an iterable of batches: the same run as on arrays, resumed bit for bit, and what is refused."""

import io
import itertools
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))
from trainer_toy import Momentum, StopAt, X, Y, same_state, timeless

from neko_rules import ALIF, BPTT, EProp, Evaluator, GradientComparison, SpikeRecorder
from neko_rules.errors import ArgumentError, CheckpointError, DataError, NekoError, NekoWarning
from neko_rules.pairs import Pairs, array
from neko_rules.trainers import Callback, Checkpoint, ProgressBar, Trainer

RNG = np.random.default_rng(3)
LABELS = RNG.integers(3, size=11)
INPUTS = (RNG.normal(size=(11, 6, 4)) + np.eye(4)[LABELS][:, None] * 2).astype(np.float32)
PARTS = [slice(0, 4), slice(4, 8), slice(8, 11)]
BATCHES = [(INPUTS[part], LABELS[part]) for part in PARTS]
TOY = [(X[part], Y[part]) for part in PARTS]


def rule_of(backend="numpy"):
    model = Evaluator(ALIF(8, 3, seed=4, backend=backend), metrics=["accuracy", "firing_rate"])
    return EProp(model, optimizer={"name": "adam", "learning_rate": 0.05})


class Again:
    """An iterable without a length, whose order or size may depend on how often it was gone through."""

    def __init__(self, make):
        self.make, self.times = make, 0

    def __iter__(self):
        self.times += 1
        yield from self.make(self.times)


def tensors(library):
    """The same batches as arrays of a library."""
    pytest.importorskip(library)
    if library == "torch":
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        return DataLoader(TensorDataset(torch.from_numpy(INPUTS), torch.from_numpy(LABELS)), batch_size=4)
    if library == "tensorflow":
        import tensorflow

        return tensorflow.data.Dataset.from_tensor_slices((INPUTS, LABELS)).batch(4)
    import jax.numpy

    return [(jax.numpy.asarray(x), jax.numpy.asarray(y)) for x, y in BATCHES]


# The same run.


@pytest.mark.parametrize("kind", ["list", "lists", "iterable", "torch", "tensorflow", "jax"])
def test_batches_of_an_iterable_train_as_the_same_arrays_do(kind):
    made = {"list": BATCHES, "lists": [list(each) for each in BATCHES], "iterable": Again(lambda _: BATCHES)}
    loader = made[kind] if kind in made else tensors(kind)
    one, other = rule_of(), rule_of()
    run = {"epochs": 3, "batch_size": 4, "shuffle": False, "validation_data": (INPUTS, LABELS)}
    expected = Trainer(one).train(INPUTS, LABELS, **run)
    trainer = Trainer(other)
    found = trainer.train(loader, epochs=3, validation_data=loader)
    same_state(other.state(), one.state())
    assert timeless(found.epochs) == timeless(expected.epochs)
    assert list(found.epochs[0]) == list(expected.epochs[0])
    assert (trainer.steps_per_epoch, trainer.total_steps, found.partial) == (3, 9, None)


def test_validation_data_are_of_either_kind_whatever_is_trained_on():
    figures = [
        Trainer(rule_of()).train(*data, epochs=2, validation_data=validation, **order)["validation_loss"]
        for data, order in [((BATCHES,), {}), ((INPUTS, LABELS), {"batch_size": 4, "shuffle": False})]
        for validation in [BATCHES, (INPUTS, LABELS), [INPUTS, LABELS], Again(lambda _: BATCHES)]
    ]
    assert all(each == figures[0] for each in figures)


def test_an_epoch_may_have_other_batches_than_the_one_before():
    rule, grown = Momentum(), Again(lambda times: TOY[:times])
    trainer = Trainer(rule)
    history = trainer.train(grown, epochs=3)
    assert history["steps"] == [1, 2, 3]
    assert [len(batch) for batch in rule.batches] == [4, 4, 4, 4, 4, 3]
    assert grown.times == 3, "the batch that is looked at first is the first of the first epoch"
    assert trainer.steps_per_epoch == 3


def test_a_generator_is_enough_for_one_epoch():
    rule = Momentum()
    Trainer(rule).train((batch for batch in TOY), epochs=1)
    expected = Momentum()
    Trainer(expected).train(X, Y, epochs=1, batch_size=4, shuffle=False)
    same_state(rule.state(), expected.state())


def test_no_batch_is_asked_for_after_a_run_has_ended():
    asked = []

    def telling(times):
        for number, batch in enumerate(TOY):
            asked.append((times, number))
            yield batch

    Trainer(Momentum(), [StopAt(4)]).train(Again(telling), epochs=5)
    assert asked == [(1, 0), (1, 1), (1, 2), (2, 0)]


def test_callbacks_are_given_the_batches_as_arrays():
    torch = pytest.importorskip("torch")
    met = []

    class Noting(Callback):
        def on_step_begin(self, trainer, x, y):
            met.append((type(x), type(y), x.shape, y.dtype))

    loader = [(torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)) for x, y in BATCHES]
    recorder = SpikeRecorder("hidden", examples=0)
    history = Trainer(rule_of(), [Noting(), recorder]).train(loader, epochs=1)
    assert met == [(np.ndarray, np.ndarray, x.shape, np.int64) for x, _ in BATCHES]
    assert history.recorded["hidden.spikes"].array.shape == (3, 1, 6, 8)


def test_a_tensor_of_another_device_is_fetched():
    class Elsewhere:
        """Stands for a tensor on a GPU, which NumPy cannot look into."""

        shape = (2, 1)

        def __array__(self, *_, **__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

        def detach(self):
            return self

        def cpu(self):
            return np.ones(self.shape)

    assert array("x", Elsewhere()).tolist() == [[1.0], [1.0]]


def test_a_comparison_takes_batches_too():
    model = Evaluator(ALIF(12, 2))
    rng = np.random.default_rng(0)
    x, y = 3 * rng.normal(size=(8, 10, 5)), rng.integers(2, size=8)
    results = [
        GradientComparison(BPTT(model.clone()), {"random": EProp(model, mode="random")}).train(*data, epochs=2, **order)
        for data, order in [
            ((x, y), {"batch_size": 4, "shuffle": False}),
            (([(x[:4], y[:4]), (x[4:], y[4:])],), {}),
        ]
    ]
    cosines = [each.statistic("random", "hidden.recurrent.weight", "cosine") for each in results]
    assert cosines[0].shape == (4,)
    assert np.array_equal(*cosines)


# Evaluation.


def test_evaluation_of_batches_counts_supervised_steps_and_not_batches():
    labels = np.where(np.arange(6) < np.arange(11)[:, None] % 6, -1, LABELS[:, None])
    model = rule_of().model
    whole = model.evaluate(INPUTS, labels)
    loader = [(INPUTS[part], labels[part]) for part in PARTS]
    for size in (256, 3):
        found = model.evaluate(iter(loader), batch_size=size)
        assert found == pytest.approx(whole, rel=1e-6)
    figures, recorded = model.evaluate(loader, recorders=[SpikeRecorder("hidden", examples=[1, 9])])
    assert figures == pytest.approx(whole, rel=1e-6)
    expected = model.evaluate(INPUTS, labels, recorders=[SpikeRecorder("hidden", examples=[1, 9])])[1]
    assert recorded["hidden.spikes"].places == [1, 9]
    assert np.array_equal(recorded["hidden.spikes"].array, expected["hidden.spikes"].array)


def test_a_first_batch_without_supervised_steps_is_no_mistake():
    unsupervised = np.full((4, 6), -1)
    labels = np.repeat(LABELS[:, None], 6, axis=1)
    loader = [(INPUTS[:4], unsupervised), (INPUTS[4:], labels[4:])]
    history = Trainer(rule_of()).train(loader, epochs=1, validation_data=loader)
    assert np.isfinite([history["loss"], history["validation_loss"]]).all()
    with pytest.raises(DataError, match="at least one time step must be supervised"):
        rule_of().model.evaluate(loader[:1])


# Resuming.


@pytest.mark.parametrize("stop", range(1, 9))
@pytest.mark.parametrize("loader", [TOY, Again(lambda _: TOY)], ids=["list", "iterable"])
def test_a_run_stopped_at_any_step_and_resumed_is_the_unstopped_run(tmp_path, stop, loader):
    expected = Momentum()
    unstopped = Trainer(expected).train(loader, epochs=3)
    Trainer(Momentum(), callbacks=[StopAt(stop), Checkpoint(tmp_path)]).train(loader, epochs=3)
    rule = Momentum()
    resumed = Trainer(rule, callbacks=[Checkpoint(tmp_path)]).train(loader, epochs=3, resume=tmp_path)
    same_state(rule.state(), expected.state())
    assert timeless(resumed.epochs) == timeless(unstopped.epochs)
    assert len(rule.batches) == 9 - stop, "no step is made twice"


def test_a_rule_on_every_backend_is_resumed_bit_for_bit(tmp_path, backend):
    loader = [BATCHES[0], BATCHES[1]]
    expected = rule_of(backend)
    unstopped = Trainer(expected).train(loader, epochs=3, validation_data=loader)
    Trainer(rule_of(backend), [StopAt(3), Checkpoint(tmp_path)]).train(loader, epochs=3, validation_data=loader)
    rule = rule_of(backend)
    resumed = Trainer(rule).train(loader, epochs=3, validation_data=loader, resume=tmp_path)
    same_state(rule.state(), expected.state())
    assert timeless(resumed.epochs) == timeless(unstopped.epochs)


def test_where_the_order_changes_a_resumed_run_says_that_it_is_another(tmp_path):
    turned = Again(lambda times: TOY[times % 3 :] + TOY[: times % 3])
    Trainer(Momentum(), [StopAt(5), Checkpoint(tmp_path)]).train(turned, epochs=3)
    with pytest.warns(NekoWarning, match=r"bit for bit .* only if its batches are the same in every epoch.*x that"):
        history = Trainer(Momentum(), [Checkpoint(tmp_path)]).train(turned, epochs=3, resume=tmp_path)
    assert history["steps"] == [3, 3, 3]
    # It stays said of what that run leaves behind, also where the order happens to be the same again.
    turned.times = 0
    with pytest.warns(NekoWarning, match="use shuffle=False, or arrays"):
        Trainer(Momentum()).train(turned, epochs=4, resume=tmp_path)


def test_a_checkpoint_of_arrays_is_none_of_batches(tmp_path):
    Trainer(Momentum(), [StopAt(2), Checkpoint(tmp_path / "batches")]).train(TOY, epochs=3)
    Trainer(Momentum(), [StopAt(2), Checkpoint(tmp_path / "arrays")]).train(X, Y, epochs=3, batch_size=4)
    match = r"resumed with the kind of data it was begun with \(received: '{}' instead of '{}'\)"
    with pytest.raises(CheckpointError, match=match.format("arrays", "batches of an iterable")):
        Trainer(Momentum()).train(X, Y, epochs=3, batch_size=4, resume=tmp_path / "batches")
    with pytest.raises(CheckpointError, match=match.format("batches of an iterable", "arrays")):
        Trainer(Momentum()).train(TOY, epochs=3, resume=tmp_path / "arrays")


def test_an_iterable_that_has_become_shorter_cannot_be_resumed(tmp_path):
    Trainer(Momentum(), [StopAt(2), Checkpoint(tmp_path)]).train(TOY, epochs=3)
    with pytest.raises(CheckpointError, match=r"1 of the 2 that had been used\); resume with the iterable"):
        Trainer(Momentum()).train(TOY[:1], epochs=3, resume=tmp_path)


def test_labels_that_a_table_gives_as_floats_are_labels_as_in_yaml(tmp_path):
    from neko_rules.datasets import Arrays

    np.savez(tmp_path / "my.npz", x=INPUTS, y=LABELS.astype(float), x_test=INPUTS, y_test=LABELS.astype(float))
    x, y, x_test, y_test = Arrays(path=tmp_path / "my.npz").load()
    one, other = rule_of(), rule_of()
    expected = Trainer(one).train(x, y, epochs=2, validation_data=(x_test, y_test))
    found = Trainer(other).train(INPUTS, LABELS.astype(float), epochs=2, validation_data=(INPUTS, LABELS.astype("f4")))
    assert timeless(found.epochs) == timeless(expected.epochs)
    same_state(one.state(), other.state())


# What is refused.


def generator():
    yield from TOY


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"x": []}, "x must give at least one batch .*an empty list"),
        ({"x": generator(), "epochs": 2}, "gone through once per epoch .*generator, for 2 epochs.*list, a DataLoader"),
        ({"x": zip(X[None], Y[None], strict=True), "epochs": 3}, "zip, for 3 epochs"),
        ({"x": X}, r"x must be an iterable of batches .*ndarray\); pass x and y"),
        ({"x": (X, Y)}, r"batch 1 of x must be a pair .*ndarray\); pass x and y as two arguments"),
        ({"x": 3}, "x must be arrays x and y, or an iterable of batches .*int"),
        ({"x": TOY, "y": 3}, r"y must be the targets of x .*3\); for an iterable .*train\(x, epochs=…\)"),
        ({"x": [{"x": X, "y": Y}]}, r"batch 1 of x must be a pair \(x, y\) .*dict"),
        ({"x": [(X, Y, Y)]}, "batch 1 of x must be a pair .*3 values"),
        ({"x": [(X, Y[:3])]}, r"x and y of batch 1 of x must have the same number of examples, .*11 and 3"),
        ({"x": [(X[:0], Y[:0])]}, "x and y of batch 1 of x must have the same number of examples, at least 1"),
        ({"x": list(zip(X, Y, strict=True))}, "y of batch 1 of x must be an array .*wrap it in a DataLoader"),
        ({"x": [(np.full_like(X, np.nan), Y)]}, "x must be finite"),
        ({"x": TOY, "batch_size": 4}, "belong to arrays: an iterable makes its batches itself .*batch_size"),
        ({"x": TOY, "shuffle": False, "seed": 1}, "belong to arrays.*shuffle, seed"),
        ({"x": TOY, "validation_data": []}, "validation_data must give at least one batch"),
        ({"x": TOY, "validation_data": generator(), "epochs": 2}, "validation_data must be an iterable .*generator"),
        ({"x": TOY, "validation_data": Again(lambda _: [{"x": X}])}, "batch 1 of validation_data must be a pair"),
        ({"x": TOY, "validation_data": Again(lambda _: [(X * np.nan, Y)])}, "x must be finite"),
    ],
)
def test_what_is_no_iterable_of_batches_is_refused_in_one_sentence_before_training(changes, match):
    rule = Momentum()
    with pytest.raises(NekoError, match=match) as caught:
        Trainer(rule).train(**{"epochs": 1} | changes)
    assert "\n" not in str(caught.value)
    assert rule.steps == 0


def test_an_iterator_that_is_exhausted_after_the_first_epoch_is_named():
    trainer = Trainer(Momentum())
    with pytest.raises(DataError, match=r"x must be .* once per epoch .*list_iterator, exhausted after the first time"):
        trainer.train(iter(TOY), epochs=2)
    assert trainer.history["steps"] == [3]
    chained = itertools.chain(TOY[:1], TOY[1:])
    with pytest.raises(DataError, match="chain, for 2 epochs"):
        Trainer(Momentum()).train(chained, epochs=2)
    trainer = Trainer(rule_of())
    with pytest.raises(DataError, match=r"validation_data must be .* once per epoch .*exhausted after the first time"):
        trainer.train(BATCHES, epochs=2, validation_data=iter(BATCHES))
    assert trainer.history["steps"] == [3]


def test_an_object_that_begins_anew_though_it_is_its_own_iterator_is_taken():
    class Restarting:
        def __iter__(self):
            self.left = list(TOY)
            return self

        def __next__(self):
            if not self.left:
                raise StopIteration
            return self.left.pop(0)

    assert Trainer(Momentum()).train(Restarting(), epochs=2)["steps"] == [3, 3]


def test_a_batch_that_does_not_fit_is_named():
    with pytest.raises(DataError, match=r"batch 2 of validation_data must be a pair .*3 values"):
        Trainer(rule_of()).train(BATCHES, epochs=1, validation_data=[(INPUTS, LABELS), (INPUTS, LABELS, LABELS)])
    loader = [BATCHES[0], (INPUTS[4:8], LABELS[4:8] + 3)]
    with pytest.raises(DataError, match="a label must be between 0 and 2") as caught:
        Trainer(rule_of()).train(loader, epochs=1)
    assert caught.value.__notes__ == ["That was batch 2 of epoch 1."]


def test_arguments_of_arrays_have_their_defaults_and_are_checked_as_before():
    runs = [{}, {"batch_size": 128, "shuffle": True, "seed": 0}]
    one, other = (Momentum() for _ in runs)
    for rule, run in zip((one, other), runs, strict=True):
        Trainer(rule).train(X, Y, epochs=2, **run)
    same_state(one.state(), other.state())
    with pytest.raises(ArgumentError, match="batch_size must be a whole number"):
        Trainer(Momentum()).train(X, Y, batch_size="4")


# The progress bar.


def drawn(loader, **changes):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    trainer = Trainer(Momentum(pause=0.06), [ProgressBar(console), *changes.pop("callbacks", [])])
    trainer.train(loader, **{"epochs": 2} | changes)
    return stream.getvalue()


def test_the_bar_counts_without_an_end_until_an_epoch_has_been_gone_through(tmp_path):
    known, unknown = drawn(TOY), drawn(Again(lambda _: TOY))
    begun = unknown[: unknown.index("2/2")]
    assert "1/3" in known[: known.index("2/2")]
    assert "None" not in unknown
    assert "/3" not in begun, "how many there are is not known"
    assert "left" not in begun
    assert "/3 · " in unknown, "in the second epoch it is"
    stopped = drawn(Again(lambda _: TOY), callbacks=[StopAt(2), Checkpoint(tmp_path)])
    assert "stopped: enough (in epoch 1 of 2, after 2 steps)" in stopped
    assert "epoch 1, step 2\x1b" in drawn(Again(lambda _: TOY), resume=tmp_path)


def test_nothing_is_warned_of_in_a_run_with_a_fixed_order(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer(Momentum(), [StopAt(4), Checkpoint(tmp_path)]).train(TOY, epochs=3)
        Trainer(Momentum()).train(TOY, epochs=3, resume=tmp_path)
    assert Pairs(TOY).length == 3


@pytest.mark.parametrize("library", ["torch", "tensorflow"])
def test_what_takes_one_batch_says_so_where_it_is_given_all(library):
    """Evaluation takes a loader, and so a user gives it to prediction too."""
    loader = tensors(library)
    with pytest.raises(DataError, match="of an iterable give every batch by itself"):
        rule_of().model.predict(loader)
