"""The progress bar: what it shows, where, and when."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))
from trainer_toy import RUN, VALIDATION, Momentum, StopAt, X, Y

from neko_rules.errors import NonFiniteError
from neko_rules.kernels import ahead
from neko_rules.trainers import Callback, Checkpoint, ProgressBar, Trainer
from neko_rules.trainers.progress import Table, duration, figure, remaining_seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(width=100, terminal=False, delay=0.0, callbacks=(), pause=0.0, resume=None, **changes):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=width, color_system="standard" if terminal else None)
    trainer = Trainer(Momentum(pause=pause), callbacks=[ProgressBar(console, delay=delay), *callbacks])
    history = trainer.train(X, Y, **RUN | changes, resume=resume)
    return stream.getvalue(), history


def test_outside_a_terminal_there_is_one_aligned_line_per_epoch():
    text, history = shown()
    above, header, *rows = text.splitlines()
    assert above.split() == ["training", "validation"]
    assert header.split() == ["epoch", "loss", "accuracy", "loss", "accuracy", "time"]
    assert len(rows) == 3
    assert {len(line) for line in [header, *rows]} == {len(header)}
    for number, (row, record) in enumerate(zip(rows, history.epochs, strict=True), start=1):
        first, *figures = row.split()[:5]
        assert first == f"{number}/3"
        names = ["loss", "accuracy", "validation_loss", "validation_accuracy"]
        assert [float(each) for each in figures] == pytest.approx([record[name] for name in names], rel=1e-2, abs=1e-4)
        # Every figure ends where its name ends.
        assert row.index(figures[0]) + len(figures[0]) == header.index("loss") + len("loss")
    assert "\x1b" not in text


class Compiling(Callback):
    """Stands for a first step that compiles."""

    def on_step_begin(self, trainer, x, y):
        if trainer.total_steps == 0:
            for done in (0, 2, 5):
                for told in ahead._watchers:
                    told(done, 5)


@pytest.mark.parametrize("terminal", [True, False])
def test_on_a_terminal_it_is_said_that_a_first_step_compiles(terminal):
    before = list(ahead._watchers)
    text, _ = shown(terminal=terminal, callbacks=[Compiling()])
    assert ahead._watchers == before, "the bar watches no longer than it is shown"
    said = re.findall(r"compiling for this form of network, once: (\d/\d)", text)
    assert list(dict.fromkeys(said)) == (["0/5", "2/5"] if terminal else [])
    if not terminal:
        assert len(text.splitlines()) == 5


def test_without_validation_there_is_one_header():
    text, _ = shown(validation_data=None)
    header, *rows = text.splitlines()
    assert header.split() == ["epoch", "loss", "accuracy", "time"]
    assert len(rows) == 3


def test_on_a_terminal_the_epoch_in_progress_is_drawn_and_erased():
    text, _ = shown(terminal=True)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "1/3 · " in plain or "validating" in plain
    assert "━" in plain
    assert "left" in plain
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0, "the cursor is given back"
    lasting = [line for line in plain.splitlines() if re.search(r"\d/3 .* s$", line)]
    assert len(lasting) == 3


def test_a_narrow_terminal_leaves_out_what_the_validation_shows_too():
    wide, _ = shown(terminal=True, width=100)
    narrow, _ = shown(terminal=True, width=50)
    assert "loss  accuracy       loss  accuracy     time" in wide
    assert "loss       loss  accuracy     time" in narrow
    assert "loss  accuracy       loss  accuracy" not in narrow


def test_a_run_shorter_than_the_delay_shows_nothing_and_a_longer_one_everything():
    assert shown(delay=60.0)[0] == ""
    text, history = shown(delay=0.1, pause=0.01)
    assert sum(history["seconds"]) > 0.1
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["1/3", "2/3", "3/3"]


def test_a_run_that_ends_early_says_where_and_why(tmp_path):
    text, history = shown(callbacks=[StopAt(5), Checkpoint(tmp_path)])
    assert text.splitlines()[-1] == "stopped: enough (in epoch 2 of 3, after 2 of 3 steps)"
    assert text.splitlines()[-2].split()[:2] == ["2/3", figure(history.partial["loss"])]
    text, _ = shown(resume=tmp_path)
    assert "epoch 2, step 2 of 3" in text.splitlines()[0]
    assert [line.split()[0] for line in text.splitlines()[3:]] == ["2/3", "3/3"]


def test_the_terminal_is_given_back_when_a_run_fails():
    stream, watchers = io.StringIO(), list(ahead._watchers)
    bar = ProgressBar(Console(file=stream, force_terminal=True, width=80))
    with pytest.raises(NonFiniteError):
        Trainer(Momentum(learning_rate=50.0), callbacks=[bar]).train(X, Y, **RUN | {"epochs": 30})
    text = stream.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0
    assert ahead._watchers == watchers, "what compiles later is not told to it"


@pytest.mark.parametrize(
    ("stream", "progress", "appears"),
    [
        (io.StringIO, None, False),
        (io.StringIO, True, True),
        (io.StringIO, False, False),
        (Terminal, None, False),  # the run takes less than two seconds
        (Terminal, True, True),
        (Terminal, False, False),
    ],
)
def test_progress_is_shown_where_asked_for(monkeypatch, stream, progress, appears):
    errors = stream()
    monkeypatch.setattr(sys, "stderr", errors)
    Trainer(Momentum()).train(X, Y, **RUN, progress=progress)
    assert ("3/3" in errors.getvalue()) is appears


def test_progress_appears_by_itself_on_a_terminal_if_the_run_takes_two_seconds(monkeypatch):
    errors = Terminal()
    monkeypatch.setattr(sys, "stderr", errors)
    rule = Momentum(pause=0.12)
    Trainer(rule).train(X, Y, epochs=3, batch_size=4, validation_data=VALIDATION)
    assert "3/3" in errors.getvalue()
    assert "1/3" in errors.getvalue()


def test_only_one_bar_is_drawn(monkeypatch):
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    text, _ = shown(progress=True)
    assert "3/3" in text
    assert errors.getvalue() == ""


def test_the_time_left_is_the_pace_since_the_first_step_times_the_steps_left():
    trainer = Trainer(Momentum())
    trainer.epochs, trainer.steps_per_epoch, trainer.total_steps = 10, 4, 11
    assert remaining_seconds((100.0, 1), 105.0, trainer) == pytest.approx(0.5 * 29)
    assert remaining_seconds((100.0, 11), 105.0, trainer) is None
    assert remaining_seconds(None, 105.0, trainer) is None


def test_figures_and_times_fit_their_columns():
    for value in (0.0, 9.99999, 999.999, 99999.4, -0.5, 1e-300, 1e300, float("nan"), float("inf")):
        assert len(figure(value)) <= 8
    for seconds in (0.0, 9.96, 59.6, 3599.7, 359999.0):
        assert len(duration(seconds)) <= 8
    assert duration(59.6) == "1:00"
    assert duration(3599.7) == "1:00:00"
    table = Table(("loss",), ("loss",), epochs=1000)
    assert len({len("".join(table.row({"epoch": epoch, "seconds": 1.0}))) for epoch in (1, 1000)}) == 1


def test_importing_the_trainer_imports_no_library_that_it_may_not_need():
    code = "import sys, neko_rules.trainers; print([m for m in ('rich', 'safetensors', 'torch') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
