"""MNIST: the published digits, and every way in which its files can be wrong."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from neko_rules.datasets import MNIST
from neko_rules.datasets import mnist as module
from neko_rules.datasets.idx import parse_idx, read_idx
from neko_rules.datasets.mnist import DIGESTS
from neko_rules.errors import ArgumentError, DataError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
needs_files = pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="the MNIST files are not here")
NAMES = list(DIGESTS)


def idx(values):
    """An IDX file's uncompressed content."""
    values = np.asarray(values, np.uint8)
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tiny MNIST, 6 training and 4 test images, that NEKO_DATA_DIR points to."""
    monkeypatch.setenv("NEKO_DATA_DIR", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    random = np.random.default_rng(0)
    for name, n in zip(NAMES, (6, 6, 4, 4), strict=True):
        values = random.integers(0, 256, (n, 28, 28)) if "images" in name else np.arange(n)
        (tmp_path / "mnist" / name).write_bytes(gzip.compress(idx(values)))
    return tmp_path / "mnist"


@needs_files
def test_the_published_digits(monkeypatch):
    monkeypatch.setenv("NEKO_DATA_DIR", str(SHARED))
    x_train, y_train, x_test, y_test = MNIST().load()
    assert (x_train.shape, x_test.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert (x_train.min(), x_train.max(), x_test.min(), x_test.max()) == (0, 1, 0, 1)
    assert y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    # The images, turned back into bytes, have the digest of the published file behind its 16-byte header.
    pixels = np.round(x_test * 255).astype(np.uint8)
    content = struct.pack(">4B3I", 0, 0, 8, 3, 10000, 28, 28) + pixels.tobytes()
    assert hashlib.md5(content).hexdigest() == DIGESTS[NAMES[2]]


@needs_files
def test_first_examples(monkeypatch):
    monkeypatch.setenv("NEKO_DATA_DIR", str(SHARED))
    x_train, y_train, x_test, y_test = MNIST(train_examples=7, test_examples=1).load()
    assert (len(x_train), y_train.tolist(), len(x_test), y_test.tolist()) == (7, [5, 0, 4, 1, 9, 2, 1], 1, [7])
    # The first image's first inked row, whose grey values are in every description of the set.
    assert np.flatnonzero(x_train[0].any(axis=1))[0] == 5
    assert np.round(x_train[0, 5, 12:16] * 255).tolist() == [3, 18, 18, 18]


def test_rows_are_time_steps_and_the_order_is_kept(folder):
    x_train, y_train, _, _ = MNIST().load()
    raw = read_idx(folder / NAMES[0], dimensions=3)
    np.testing.assert_array_equal(x_train, raw.astype(np.float32) / np.float32(255))
    assert y_train.tolist() == [0, 1, 2, 3, 4, 5]


def test_files_are_cached_once_where_the_user_wants_them(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("NEKO_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = []

    def download(urls, target, md5):
        asked.append((urls, md5))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((folder / target.name).read_bytes())
        return target

    monkeypatch.setattr(module, "download", download)
    assert len(MNIST().load()[0]) == 6
    assert sorted(path.name for path in (tmp_path / "cache/neko_rules/mnist").iterdir()) == sorted(NAMES)
    assert [md5 for _, md5 in asked] == list(DIGESTS.values())
    assert all(url.startswith("https://") and url.endswith(".gz") for urls, _ in asked for url in urls)
    assert all(len(urls) == 2 for urls, _ in asked)


def test_nothing_is_downloaded_where_the_folder_is_given(folder, monkeypatch):
    monkeypatch.setattr(module, "download", lambda *_: pytest.fail("downloaded"))
    MNIST().load()
    (folder / NAMES[3]).unlink()
    with pytest.raises(DataError, match=r"t10k-labels.* must exist because NEKO_DATA_DIR is set; put the file there"):
        MNIST().load()


def spoilt(content):
    """Ways to break a gzip-compressed IDX file of labels: name, new content of the file, what the error says."""
    plain = gzip.decompress(content)
    return {
        "magic": (gzip.compress(b"\0\0\x09\x01" + plain[4:]), "begins with 00000801"),
        "dimensions": (gzip.compress(idx(np.zeros((6, 1, 1)))), "begins with 00000801"),
        "empty": (gzip.compress(b""), "an empty file"),
        "header": (gzip.compress(plain[:6]), "header of 8 bytes"),
        "cut": (gzip.compress(plain[:-1]), "must hold the 6 values .*5 of them.*the file is cut"),
        "trailing": (gzip.compress(plain + b"\0"), "1 bytes too many"),
        "count": (gzip.compress(plain[:4] + struct.pack(">I", 7) + plain[8:]), "must hold the 7 values"),
        "not gzip": (plain, "undamaged gzip"),
        "gzip cut": (content[:-9], "whole gzip file"),
        "gzip damaged": (content[:-6] + bytes([content[-6] ^ 1]) + content[-5:], "undamaged gzip"),
        "gzip stream": (content[:10] + b"\xff\xff\xff" + content[13:], "undamaged gzip"),
        "fewer labels": (gzip.compress(idx(np.arange(5))), "6 images and 5 labels"),
        "label 10": (gzip.compress(idx([0, 1, 10, 3, 4, 5])), "label 10 at example 2"),
    }


@pytest.mark.parametrize("how", list(spoilt(gzip.compress(idx(np.arange(6))))))
def test_damaged_labels_are_refused(how, folder):
    path = folder / NAMES[1]
    content, said = spoilt(path.read_bytes())[how]
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        MNIST().load()
    assert NAMES[1] in str(caught.value)
    assert str(caught.value).count(". ") == 0


def test_images_of_another_size_are_refused(folder):
    (folder / NAMES[0]).write_bytes(gzip.compress(idx(np.zeros((6, 27, 28)))))
    with pytest.raises(DataError, match="28 by 28 pixels"):
        MNIST().load()


def test_a_data_set_without_examples_is_refused(folder):
    (folder / NAMES[0]).write_bytes(gzip.compress(idx(np.zeros((0, 28, 28)))))
    (folder / NAMES[1]).write_bytes(gzip.compress(idx(np.zeros(0))))
    with pytest.raises(DataError, match="no labels"):
        MNIST().load()


def test_a_missing_or_unreadable_idx_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.gz must exist"):
        read_idx(tmp_path / "none.gz", dimensions=1)
    with pytest.raises(DataError, match="must be readable"):
        read_idx(tmp_path, dimensions=1)


def test_idx_keeps_the_order_of_values():
    values = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(parse_idx(idx(values), 3, "values"), values)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "10"])
def test_wrong_numbers_of_examples(value):
    with pytest.raises(ArgumentError, match="train_examples must be a whole number of at least 1"):
        MNIST(train_examples=value)


def test_more_examples_than_there_are(folder):
    with pytest.raises(ArgumentError, match="test_examples must be at most 4"):
        MNIST(test_examples=5).load()
