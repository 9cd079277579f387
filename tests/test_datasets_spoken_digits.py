"""Spoken digits: the published recordings, features of known sounds, and every way in which files are wrong."""

import http.server
import io
import threading
import wave
import zipfile

import numpy as np
import pytest

from neko_rules.datasets import SpokenDigits
from neko_rules.datasets import spoken_digits as module
from neko_rules.datasets.archive import read_archive
from neko_rules.datasets.cochlea import COMPRESSION, centre_frequencies, cochleagram, gammatone_filters
from neko_rules.datasets.frames import frame_count, frames
from neko_rules.datasets.mel import FLOOR, log_mel, mel, mel_bands
from neko_rules.datasets.wav import parse_wav
from neko_rules.errors import ArgumentError, DataError

RATE = 8000


def tone(frequency, seconds=0.5, rate=RATE):
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def wav(sound, channels=1, width=2, rate=RATE):
    """A WAV file of the sound, as bytes."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((channels, width, rate, 0, "NONE", ""))
        recording.writeframes(np.clip(np.round(np.asarray(sound) * 2**15), -(2**15), 2**15 - 1).astype("<i2").tobytes())
    return file.getvalue()


def recordings(speakers=("ann", "bob"), repetitions=7):
    """A small set: digit d is a tone of 300 (d + 1) Hz, a little longer with each repetition."""
    return {
        f"{d}_{speaker}_{i}.wav": wav(0.5 * tone(300 * (d + 1), 0.1 + 0.02 * i))
        for d in range(10)
        for speaker in speakers
        for i in range(repetitions)
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the small set, of which NEKO_DATA_DIR tells."""
    monkeypatch.setenv("NEKO_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(module, "REPETITIONS", 7)
    (tmp_path / "fsdd").mkdir()
    for name, content in recordings().items():
        (tmp_path / "fsdd" / name).write_bytes(content)
    return tmp_path / "fsdd"


# The published recordings.


def test_the_published_recordings(shared, monkeypatch):
    monkeypatch.setenv("NEKO_DATA_DIR", str(shared / "data"))
    found = module._recordings()
    assert module.digest(found) == module.DIGEST
    x_train, y_train, x_test, y_test = SpokenDigits(hop=0.02).load()
    # The longest recording, 9_theo_16, has 18262 samples: 200 in the first frame and 160 in each of 113 more.
    assert (x_train.shape, x_test.shape) == ((2700, 114, 32), (300, 114, 32))
    assert np.bincount(y_train).tolist() == [270] * 10
    assert np.bincount(y_test).tolist() == [30] * 10
    assert x_train.dtype == np.float32
    assert y_train.dtype == np.int64
    # Normalised by the frames that are there, which zeros after the end are not.
    there = x_train[x_train.any(axis=2)].astype(np.float64)
    np.testing.assert_allclose(there.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(there.std(axis=0), 1, atol=1e-5)


def test_cochlear_features_of_published_recordings(shared, monkeypatch):
    monkeypatch.setenv("NEKO_DATA_DIR", str(shared / "data"))
    x, y, _, _ = SpokenDigits(features="cochlear", train_examples=60, test_examples=1, time_steps=40).load()
    assert x.shape == (60, 40, 32)
    assert y.tolist() == [d for d in range(10) for _ in range(6)]
    assert np.isfinite(x).all()
    assert (np.abs(x).max(axis=(0, 1)) > 1).all()


def test_train_and_test_recordings_are_the_official_ones(shared, monkeypatch):
    monkeypatch.setenv("NEKO_DATA_DIR", str(shared / "data"))
    found = module._recordings()
    train, test = (module._chosen(found, tested, "examples", None) for tested in (False, True))
    assert set(train) | set(test) == set(found)
    assert not set(train) & set(test)
    index = {name: int(name[:-4].split("_")[2]) for name in found}
    assert {index[name] for name in test} == set(range(5))
    assert {index[name] for name in train} == set(range(5, 50))
    for names in (train, test):
        assert {name.split("_")[1] for name in names} == {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}


# The loader, on the small set.


@pytest.mark.parametrize("features", ["mel", "cochlear"])
def test_examples_are_where_they_belong(features, folder):
    digits = SpokenDigits(features=features, channels=20, hop=0.02)
    x, y, x_test, y_test = digits.load()
    assert (x.shape, x_test.shape) == ((40, 11, 20), (100, 11, 20))  # 0.22 s: ⌈(0.22 - 0.025)/0.02⌉ + 1 frames
    assert y.tolist() == [d for _ in (5, 6) for d in range(10) for _ in "ab"]
    assert y_test.tolist() == [d for _ in range(5) for d in range(10) for _ in "ab"]
    # A higher tone is loudest in a higher channel; all are filled up with zeros.
    loudest = x[:20:2, 3].argmax(axis=1)
    assert (np.diff(loudest) > 0).all()
    assert (x[:20, 10] == 0).all()
    assert x[:20, :10].any(axis=2).all()
    assert x[20:, 10].any(axis=1).all()
    # The same sound gives the same frames, wherever it is and whoever speaks.
    np.testing.assert_array_equal(x[0::2], x[1::2])


def test_normalisation_knows_training_examples_only(folder):
    before = SpokenDigits(hop=0.02).load()
    for path in folder.glob("*_0.wav"):
        path.write_bytes(wav(np.random.default_rng(0).uniform(-1, 1, 900)))
    after = SpokenDigits(hop=0.02).load()
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[2] != after[2]).any()


def test_normalisation_to_a_range(folder):
    x, _, x_test, _ = SpokenDigits(hop=0.02, normalisation="range").load()
    np.testing.assert_array_equal(x.min(axis=(0, 1)), 0)
    np.testing.assert_allclose(x.max(axis=(0, 1)), 1, rtol=1e-6)
    (folder / "0_ann_0.wav").write_bytes(wav(np.random.default_rng(0).uniform(-1, 1, 900)))
    _, _, louder, _ = SpokenDigits(hop=0.02, normalisation="range").load()
    assert louder[0].max() == 1
    assert louder.min() == 0
    assert x_test[0].max() <= 1


def test_a_silent_channel_is_no_division_by_zero(folder):
    for path in folder.glob("*.wav"):
        path.write_bytes(wav(np.zeros(900)))
    for normalisation in ("standard", "range"):
        x, _, x_test, _ = SpokenDigits(hop=0.02, normalisation=normalisation).load()
        assert not x.any()
        assert not x_test.any()


def test_a_number_of_time_steps_cuts_and_fills(folder):
    whole, cut, filled = (SpokenDigits(hop=0.02, time_steps=n, normalisation="range").load()[0] for n in (None, 4, 30))
    assert (cut.shape[1], filled.shape[1]) == (4, 30)
    np.testing.assert_array_equal(filled[:, :11], whole)
    assert not filled[:, 11:].any()
    # Frames that are cut off do not count for the normalisation.
    np.testing.assert_allclose(cut.max(axis=(0, 1)), 1, rtol=1e-6)


def test_resampling_keeps_frequencies_and_durations(folder):
    options = {"hop": 0.02, "channels": 20, "train_examples": 20}
    x, other = SpokenDigits(**options).load()[0], SpokenDigits(**options, sample_rate=16000).load()[0]
    assert x.shape == other.shape
    np.testing.assert_array_equal(x[:, 3].argmax(axis=1), other[:, 3].argmax(axis=1))
    assert (x != other).any()


def test_first_examples(folder):
    every, few = SpokenDigits(hop=0.02).load(), SpokenDigits(hop=0.02, test_examples=3).load()
    np.testing.assert_array_equal(few[2], every[2][:3])
    with pytest.raises(ArgumentError, match="train_examples must be at most 40"):
        SpokenDigits(train_examples=41).load()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"features": "mfcc"}, "features"),
        ({"channels": 0}, "channels"),
        ({"channels": 400}, "channels must be few enough for every mel band"),
        ({"frame": 0}, "frame"),
        ({"frame": 0.00001}, "whole number of time steps"),
        ({"hop": 1e-16}, "hop"),
        ({"hop": 0.00133}, "whole number of time steps of 0.000125 s"),
        ({"time_steps": 0}, "time_steps"),
        ({"lowest_frequency": 0}, "lowest_frequency"),
        ({"highest_frequency": 50}, "highest_frequency must be .* above 80"),
        ({"highest_frequency": 4000}, "below 4000"),
        ({"sample_rate": 8000.5}, "sample_rate"),
        ({"normalisation": "mean"}, "normalisation"),
        ({"train_examples": 0}, "train_examples"),
        ({"test_examples": True}, "test_examples"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        SpokenDigits(**arguments)


# Missing and damaged files.


def test_a_folder_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("NEKO_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match="fsdd must exist because NEKO_DATA_DIR is set; put the recordings there"):
        SpokenDigits().load()
    (tmp_path / "fsdd").mkdir()
    with pytest.raises(DataError, match=r"named digit_speaker_index\.wav .received: none"):
        SpokenDigits().load()


def test_recordings_that_are_missing_or_of_another_set(folder):
    (folder / "._0_ann_0.wav").write_bytes(b"what some systems leave beside a file")
    assert len(SpokenDigits(hop=0.02).load()[0]) == 40
    (folder / "3_bob_2.wav").unlink()
    with pytest.raises(DataError, match=r"lacks 1, such as 3_bob_2\.wav"):
        SpokenDigits().load()
    (folder / "3_bob_2.wav").write_bytes(wav(tone(300)))
    (folder / "3_bob_7.wav").write_bytes(wav(tone(300)))
    with pytest.raises(DataError, match=r"holds 1, such as 3_bob_7\.wav"):
        SpokenDigits().load()
    (folder / "noise.wav").write_bytes(wav(tone(300)))
    with pytest.raises(DataError, match=r"named digit_speaker_index\.wav .received: noise\.wav"):
        SpokenDigits().load()


GOOD = wav(tone(440, 0.01))

SPOILT = {
    "empty": (b"", "whole WAV file"),
    "text": (b"RIFF is not all that a file needs to have", "whole WAV file"),
    "header": (GOOD[:30], "whole WAV file"),
    "cut": (GOOD[:-1], "must hold the 80 samples that it declares .received: 159 of 160 bytes.*the file is cut"),
    "float": (GOOD[:20] + b"\3\0" + GOOD[22:], "whole WAV file of uncompressed samples"),
    "stereo": (wav(tone(440, 0.01), channels=2), "one channel.*2 channel"),
    "bytes": (wav(tone(440, 0.01), width=1), "16-bit.*8-bit"),
    "rate": (wav(tone(440, 0.01), rate=16000), "8000 Hz.*16000 Hz"),
    "silence": (wav([]), "at least one sample"),
}


@pytest.mark.parametrize("how", list(SPOILT))
def test_damaged_recordings_are_refused(how, folder):
    content, said = SPOILT[how]
    (folder / "4_ann_6.wav").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        SpokenDigits().load()
    assert "4_ann_6.wav" in str(caught.value)


def test_samples_are_what_was_written():
    samples = np.array([0, 1, -1, 2**15 - 1, -(2**15)]) / 2**15
    np.testing.assert_array_equal(parse_wav(wav(samples), RATE, "five"), samples)


# The archive and its download.


def archive(contents, compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as packed:
        packed.writestr("digits-1/README.md", "not a recording")
        for name, content in contents.items():
            packed.writestr(f"digits-1/recordings/{name}", content)
    return file.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror on this machine, and a cache of its own."""
    monkeypatch.delenv("NEKO_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "REPETITIONS", 7)
    monkeypatch.setattr(module, "DIGEST", module.digest(recordings()))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.body = archive(recordings())
        monkeypatch.setattr(module, "MIRRORS", (f"http://127.0.0.1:{running.server_address[1]}/",))
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_the_archive_is_downloaded_once_and_gives_what_a_folder_gives(server, tmp_path, monkeypatch, capfd):
    downloaded = SpokenDigits(hop=0.02).load()
    server.body = b""
    again = SpokenDigits(hop=0.02).load()
    assert [path.name for path in (tmp_path / "cache/neko_rules/fsdd").iterdir()] == [module.ARCHIVE]
    assert capfd.readouterr() == ("", "")  # no progress bar where nobody sees it
    (tmp_path / "fsdd").mkdir()
    for name, content in recordings().items():
        (tmp_path / "fsdd" / name).write_bytes(content)
    monkeypatch.setenv("NEKO_DATA_DIR", str(tmp_path))
    for first, second, third in zip(downloaded, again, SpokenDigits(hop=0.02).load(), strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)


def test_an_archive_made_anew_is_as_good(server):
    """Servers make such archives when they are asked for: the compression is theirs, the recordings are not."""
    server.body = archive(recordings(), zipfile.ZIP_STORED)
    assert len(SpokenDigits(hop=0.02).load()[0]) == 40


def test_an_archive_of_other_recordings_is_not_kept(server, tmp_path):
    server.body = archive({**recordings(), "0_ann_0.wav": GOOD})
    with pytest.raises(DataError, match=r"release 1\.0\.10 from one of its 1 mirrors.*digest of the record"):
        SpokenDigits().load()
    assert list((tmp_path / "cache/neko_rules/fsdd").iterdir()) == []


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def spoilt_archives():
    """Ways to break an archive: its new content, and what the error says."""
    stored = archive({"0_ann_0.wav": GOOD}, zipfile.ZIP_STORED)
    packed = archive({"0_ann_0.wav": GOOD})
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as both:
        both.writestr("a/recordings/0_ann_0.wav", GOOD)
        both.writestr("b/recordings/0_ann_0.wav", GOOD)
    encrypted = bytearray(stored)
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        encrypted[stored.rindex(signature) + offset] |= 1
    return {
        "empty": (b"", "undamaged ZIP archive"),
        "text": (b"<html>", "undamaged ZIP archive"),
        "cut": (packed[:-30], "undamaged ZIP archive"),
        "a sample": (flipped(stored, stored.index(GOOD) + 100), "undamaged ZIP archive.*Bad CRC-32"),
        "compressed data": (flipped(packed, packed.index(b"0_ann_0.wav") + 15), "undamaged ZIP archive"),
        "encrypted": (bytes(encrypted), "undamaged ZIP archive.*encrypted"),
        "nothing": (archive({}), "must hold files named .*an archive without any"),
        "twice": (twice.getvalue(), "every file once .received: 0_ann_0.wav twice"),
    }


@pytest.mark.parametrize("how", list(spoilt_archives()))
def test_damaged_archives_are_refused_in_one_sentence(how, tmp_path):
    content, said = spoilt_archives()[how]
    (tmp_path / "my.zip").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_archive(tmp_path / "my.zip", r"[^/]+/recordings/[^/]+\.wav")
    assert "my.zip" in str(caught.value)


def test_an_archive_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"none\.zip must exist"):
        read_archive(tmp_path / "none.zip", ".*")
    with pytest.raises(DataError, match="must be readable"):
        read_archive(tmp_path, ".*")


# Frames, mel, cochlea: closed forms.


@pytest.mark.parametrize(("samples", "frame", "hop"), [(1, 4, 2), (4, 4, 2), (5, 4, 2), (11, 4, 3), (9, 3, 5)])
def test_frames_hold_every_sample(samples, frame, hop):
    signal = np.arange(1.0, samples + 1)
    cut = frames(signal, frame, hop)
    assert cut.shape == (frame_count(samples, frame, hop), frame)
    padded = np.concatenate([signal, np.zeros(2 * (frame + hop))])
    for i, piece in enumerate(cut):
        np.testing.assert_array_equal(piece, padded[i * hop : i * hop + frame])
    assert hop > frame or signal[-1] in cut


def test_the_mel_scale_has_its_fixed_points():
    assert mel(0) == 0
    np.testing.assert_allclose(mel(1000), 1000, rtol=2e-5)
    np.testing.assert_allclose(mel(700), 2595 * np.log10(2))


def test_mel_bands_are_a_partition_of_unity_between_the_outer_centres():
    bands = mel_bands(12, 100.0, 3800.0, points=1024, sample_rate=RATE)
    at = mel(np.fft.rfftfreq(1024, 1 / RATE))
    edges = np.linspace(mel(100), mel(3800), 14)
    inner = (at >= edges[1]) & (at <= edges[-2])
    np.testing.assert_allclose(bands[inner].sum(axis=1), 1, rtol=1e-12)
    assert not bands[(at <= edges[0]) | (at >= edges[-1])].any()


def test_log_mel_of_silence_and_of_noise():
    bands = mel_bands(10, 100.0, 3800.0, points=512, sample_rate=RATE)
    np.testing.assert_allclose(log_mel(np.zeros(1000), bands, 200, 80), np.log(FLOOR))
    # White noise of variance s² has P(f) = s² in the mean. Over 1600 frames, of which every third is independent, the
    # energy of a band is within 0.2 of its logarithm; its relative deviation there is at most √(2·3/1600) = 0.06.
    noise = 0.1 * np.random.default_rng(0).standard_normal(80 * 1600)
    energy = np.exp(log_mel(noise, bands, 200, 80)).mean(axis=0)
    np.testing.assert_allclose(energy, 0.01 * bands.sum(axis=0), rtol=0.3)


def test_log_mel_is_the_written_sum():
    sound = np.random.default_rng(1).uniform(-1, 1, 240)
    bands = mel_bands(5, 100.0, 3800.0, points=256, sample_rate=RATE)
    n, f = np.arange(100), np.arange(129)[:, None]
    window = np.sin(np.pi * n / 100) ** 2
    expected = []
    for start in (0, 70, 140):
        transform = np.exp(-2j * np.pi * f * n / 256) @ (window * sound[start : start + 100])
        expected.append(np.log(1e-8 + (np.abs(transform) ** 2 / (window**2).sum()) @ bands))
    np.testing.assert_allclose(log_mel(sound, bands, 100, 70), expected, rtol=1e-10)


def test_centre_frequencies_are_equally_spaced_for_the_ear():
    found = centre_frequencies(30, 100.0, 3800.0)
    np.testing.assert_allclose(found[[0, -1]], [100, 3800])
    np.testing.assert_allclose(np.diff(np.log(1 + 4.37e-3 * found), n=2), 0, atol=1e-12)
    assert 100 < centre_frequencies(1, 100.0, 3800.0)[0] < 3800


@pytest.mark.parametrize("frequency", [150.0, 1000.0, 3000.0])
def test_a_gammatone_filter_has_gain_one_at_its_centre_and_falls_off(frequency):
    [(numerator, denominator)] = gammatone_filters(np.array([frequency]), RATE)

    def gain(f):
        z = np.exp(-2j * np.pi * f / RATE)
        return abs(np.polyval(numerator[::-1], z) / np.polyval(denominator[::-1], z))

    width = 24.7 * (4.37e-3 * frequency + 1)
    np.testing.assert_allclose(gain(frequency), 1, rtol=0.01)
    assert gain(frequency + 2 * width) < 0.15
    assert gain(frequency - 2 * width) < 0.15


def test_a_tone_through_the_cochlea_has_its_closed_form():
    """In the channel of its frequency a tone of amplitude A ends as the mean of its positive half, A/π, to the 0.3."""
    filters = gammatone_filters(np.array([1000.0, 2500.0]), RATE)
    for amplitude in (0.1, 0.8):
        y = cochleagram(amplitude * tone(1000.0), filters, frame=200, hop=80)
        # Twenty-five periods of eight samples: the mean of max(0, sin) over a period is within 6 % of 1/π.
        np.testing.assert_allclose(y[20:40, 0], (amplitude / np.pi) ** COMPRESSION, rtol=0.03)
        assert (y[20:40, 1] < 0.3 * y[20:40, 0]).all()
    assert not cochleagram(np.zeros(400), filters, 200, 80).any()
