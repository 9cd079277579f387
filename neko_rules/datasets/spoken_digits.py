"""Spoken digits: recordings of the words zero to nine, as frames of a spectrogram or of a model of the cochlea."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neko_rules.arguments import choice, integer, number
from neko_rules.datasets.archive import read_archive
from neko_rules.datasets.cochlea import centre_frequencies, cochleagram, gammatone_filters
from neko_rules.datasets.dataset import DATASETS, Dataset, Split
from neko_rules.datasets.download import fetch
from neko_rules.datasets.mel import log_mel, mel_bands
from neko_rules.datasets.timing import steps
from neko_rules.datasets.wav import parse_wav
from neko_rules.errors import ArgumentError, DataError

MIRRORS = (
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/d6938f9bf1545aa66d8489fc9f1385a7abd64282.zip",
    "https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/zip/refs/tags/v1.0.10",
)
"""The commit of release 1.0.10, and its tag."""

ARCHIVE = "free-spoken-digit-dataset-1.0.10.zip"

DIGEST = "45a9b976ba3397a2fd5c70a9f2e43c34f442a3a6be47392ecfc41174b678f37e"
"""SHA-256 of the names and contents of the recordings in the order of their names; the archive itself is made anew by
its server, which promises no digest."""

RECORDED = 8000
"""Sample rate of the recordings in Hz."""

REPETITIONS = 50
"""Recordings of each digit by each speaker, with the indices 0 to 49."""

TEST_INDICES = range(5)
"""Recordings of each digit by each speaker that the authors set aside for testing."""

NAME = re.compile(r"([0-9])_([a-z]+)_(0|[1-9][0-9]*)\.wav")
"""Digit, speaker, index."""


@DATASETS.register("spoken_digits", "fsdd")
@dataclass(frozen=True)
class SpokenDigits(Dataset):
    """Spoken digits: 3,000 recordings of zero to nine by six speakers, as frames of a spectrogram.

    Inputs are [2700, time_steps, channels] for training and [300, time_steps, channels] for testing, targets the digits
    0 to 9. The test set is the official one: recordings 0 to 4 of each digit by each speaker, so that all speakers are
    in both sets. Examples are in the order of index, digit and speaker.

    The recordings are read from the folder ``$NEKO_DATA_DIR/fsdd`` if ``NEKO_DATA_DIR`` is set (nothing is then
    downloaded), and otherwise from ``neko_rules/fsdd`` in ``$XDG_CACHE_HOME`` or ``~/.cache``, where their archive is
    downloaded once, about 16 MB, and checked by a digest of all recordings. They are licensed CC BY-SA 4.0.

    Args:
        features: ``"mel"``, a log-mel spectrogram, or ``"cochlear"``, gammatone filters with rectification and
            compression.
        channels: number of frequency bands.
        frame: length of a frame in seconds.
        hop: seconds from the start of a frame to that of the next: the time step of the data.
        time_steps: frames of an example; longer recordings are cut at their end, and shorter ones are followed by
            zeros. None: as many as the longest of the loaded recordings needs, 227 with the default frames; all but
            0.7 % of the recordings are shorter than a second.
        lowest_frequency: where the lowest band begins (``"mel"``) or is centred (``"cochlear"``), in Hz.
        highest_frequency: where the highest band ends or is centred, in Hz; below half the sample rate.
        sample_rate: to which the recordings are resampled first, in Hz; they have 8000.
        normalisation: of each channel by the frames of the training examples: ``"standard"``, to mean 0 and standard
            deviation 1; or ``"range"``, to 0 and 1 as its lowest and highest value, for inputs that must not be
            negative (test examples are clipped). Zeros after the end count for neither.
        train_examples: load only the first so many training examples; None for all.
        test_examples: likewise for the test examples.

    Raises:
        ArgumentError: an argument is out of its range.
        DataError: a recording is missing, damaged, or belongs to other data.

    References:
        Z. Jackson et al., Free Spoken Digit Dataset, release 1.0.10, https://doi.org/10.5281/zenodo.1342401. The
        features: ``neko_rules.datasets.mel`` and ``neko_rules.datasets.cochlea``.

    Example:
        >>> digits = SpokenDigits(features="cochlear", channels=16, hop=20e-3, time_steps=50)
        >>> x_train, y_train, x_test, y_test = digits.load()  # doctest: +SKIP
        >>> x_train.shape, x_test.shape  # doctest: +SKIP
        ((2700, 50, 16), (300, 50, 16))
    """

    features: str = "mel"
    channels: int = 32
    frame: float = 25e-3
    hop: float = 10e-3
    time_steps: int | None = None
    lowest_frequency: float = 80.0
    highest_frequency: float = 3800.0
    sample_rate: int = RECORDED
    normalisation: str = "standard"
    train_examples: int | None = None
    test_examples: int | None = None

    def __post_init__(self) -> None:
        choice("features", self.features, ["mel", "cochlear"])
        integer("channels", self.channels, at_least=1)
        integer("sample_rate", self.sample_rate, at_least=1000)
        for name in ("frame", "hop"):
            samples = steps(name, number(name, getattr(self, name), above=0), 1 / self.sample_rate)
            if samples == 0:
                raise ArgumentError(f"{name} must be at least one sample long", received=getattr(self, name))
        number("lowest_frequency", self.lowest_frequency, above=0)
        above = self.lowest_frequency
        number("highest_frequency", self.highest_frequency, above=above, below=self.sample_rate / 2)
        choice("normalisation", self.normalisation, ["standard", "range"])
        for name in ("time_steps", "train_examples", "test_examples"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), at_least=1)
        self._extractor()

    @property
    def task_type(self) -> str:
        """Always ``"classification"``."""
        return "classification"

    def load(self) -> Split:
        """The arrays ``x_train, y_train, x_test, y_test``, downloaded first if need be."""
        recordings = _recordings()
        train = _chosen(recordings, False, "train_examples", self.train_examples)
        test = _chosen(recordings, True, "test_examples", self.test_examples)
        features = self._features({name: recordings[name] for name in train + test})
        shift, scale = self._normalisation([features[name] for name in train])
        count = max(map(len, features.values())) if self.time_steps is None else self.time_steps
        x_train, x_test = (self._filled([features[n] for n in names], shift, scale, count) for names in (train, test))
        return x_train, _labels(train), x_test, _labels(test)

    def _filled(self, features: list[np.ndarray], shift: np.ndarray, scale: np.ndarray, count: int) -> np.ndarray:
        """Normalised frames of examples in one array, cut or followed by zeros."""
        x = np.zeros((len(features), count, self.channels), np.float32)
        for row, found in zip(x, features, strict=True):
            values = (found[:count] - shift) / scale
            row[: len(values)] = np.clip(values, 0, 1) if self.normalisation == "range" else values
        return x

    def _features(self, recordings: dict[str, bytes]) -> dict[str, np.ndarray]:
        """Frames [frames, channels] of every recording, as many as each has; a progress bar where somebody sees it."""
        from rich.console import Console
        from rich.progress import track
        from scipy.signal import resample_poly

        extract = self._extractor()
        common = math.gcd(self.sample_rate, RECORDED)
        console = Console(stderr=True)
        found = {}
        watched = track(
            recordings.items(),
            "Listening to spoken digits",
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        for name, content in watched:
            sound = parse_wav(content, RECORDED, name)
            if self.sample_rate != RECORDED:
                sound = resample_poly(sound, self.sample_rate // common, RECORDED // common)
            found[name] = extract(sound)
        return found

    def _extractor(self) -> Callable[[np.ndarray], np.ndarray]:
        """The function from samples to frames [frames, channels]."""
        frame, hop = (steps(name, getattr(self, name), 1 / self.sample_rate) for name in ("frame", "hop"))
        low, high = self.lowest_frequency, self.highest_frequency
        if self.features == "mel":
            points = 2 ** math.ceil(math.log2(2 * frame))
            bands = mel_bands(self.channels, low, high, points, self.sample_rate)
            return lambda sound: log_mel(sound, bands, frame, hop)
        filters = gammatone_filters(centre_frequencies(self.channels, low, high), self.sample_rate)
        return lambda sound: cochleagram(sound, filters, frame, hop)

    def _normalisation(self, features: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What is taken off, and then divided by, per channel."""
        together = np.concatenate([values[: self.time_steps] for values in features])
        if self.normalisation == "range":
            shift, scale = together.min(axis=0), np.ptp(together, axis=0)
        else:
            shift, scale = together.mean(axis=0), together.std(axis=0)
        # A channel that never changes becomes zero, in spite of the rounding of its mean.
        constant = scale <= 1e-9 * np.abs(shift)
        return np.where(constant, together[0], shift), np.where(constant, 1.0, scale)


def _chosen(recordings: dict[str, bytes], tested: bool, argument: str, wanted: int | None) -> list[str]:
    """Names of the training or test recordings in the order of index, digit and speaker, the first ``wanted``."""
    places = []
    for name in recordings:
        digit, speaker, index = NAME.fullmatch(name).groups()  # type: ignore[union-attr]  # as _check_names saw to
        if (int(index) in TEST_INDICES) is tested:
            places.append((int(index), digit, speaker, name))
    if wanted is not None and wanted > len(places):
        raise ArgumentError(f"{argument} must be at most {len(places)}, the examples there are", received=wanted)
    return [name for *_, name in sorted(places)[:wanted]]


def _labels(names: list[str]) -> np.ndarray:
    return np.array([int(name[0]) for name in names], np.int64)


def _recordings() -> dict[str, bytes]:
    """The contents of all WAV files by their names, downloaded first if need be."""
    given = os.environ.get("NEKO_DATA_DIR")
    if given:
        folder = Path(given).expanduser() / "fsdd"
        if not folder.is_dir():
            raise DataError(
                f"the folder {folder} must exist because NEKO_DATA_DIR is set",
                works="put the recordings there, or unset NEKO_DATA_DIR so that they are downloaded",
            )
        try:
            found = {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*.wav"))}
        except OSError as error:
            raise DataError(f"{error.filename} must be readable", received=error.strerror or str(error)) from None
        return _check_names(found, str(folder))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    path = fetch(MIRRORS, cache / "neko_rules" / "fsdd" / ARCHIVE, _check_archive, "the recordings of release 1.0.10")
    return _check_names(_read(path), str(path))


def _read(path: Path) -> dict[str, bytes]:
    return read_archive(path, r"[^/]+/recordings/[^/]+\.wav")


def _check_archive(path: Path) -> None:
    """Refuse an archive that does not hold exactly the recordings of the release."""
    found = digest(_read(path))
    if found != DIGEST:
        raise DataError("the SHA-256 digest of the recordings differs", received=found)


def digest(recordings: dict[str, bytes]) -> str:
    """SHA-256 of names and contents in the order of the names.

    Example:
        >>> digest({"b.wav": b"2", "a.wav": b"1"}) == hashlib.sha256(b"a.wav1b.wav2").hexdigest()
        True
    """
    whole = hashlib.sha256()
    for name in sorted(recordings):
        whole.update(name.encode())
        whole.update(recordings[name])
    return whole.hexdigest()


def _check_names(recordings: dict[str, bytes], source: str) -> dict[str, bytes]:
    """Refuse a folder or archive that lacks a recording, or holds one of another name."""
    for name in recordings:
        if not NAME.fullmatch(name):
            raise DataError(f"{source} must hold WAV files named digit_speaker_index.wav", received=name)
    speakers = sorted({name.split("_")[1] for name in recordings})
    wanted = {f"{d}_{speaker}_{i}.wav" for d in range(10) for speaker in speakers for i in range(REPETITIONS)}
    if not speakers:
        raise DataError(f"{source} must hold WAV files named digit_speaker_index.wav", received="none")
    for names, said in ((wanted - set(recordings), "lacks"), (set(recordings) - wanted, "holds")):
        if names:
            raise DataError(
                f"{source} must hold recordings 0 to {REPETITIONS - 1} of each digit by each speaker, and no other",
                received=f"it {said} {len(names)}, such as {min(names)}",
                works="fetch release 1.0.10 again",
            )
    return recordings
