"""Coefficient layout, the 26-frame driving window, and expression templates good and hostile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dubstream.engines.errors import CheckpointError, InternalError
from dubstream.runtime import coefficients as co


def test_worked_window_indices() -> None:
    assert co.window_indices(40, 0).tolist() == [0] * 14 + list(range(1, 13))
    assert co.window_indices(40, 39).tolist() == list(range(26, 40)) + [39] * 12
    assert co.window_indices(1, 0).tolist() == [0] * 26


def test_driving_window_columns_are_frames() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 73)).astype(np.float32)
    window = co.driving_window(rows, 20)
    assert window.shape == (73, 26)
    assert window.flags.c_contiguous
    np.testing.assert_array_equal(window[:, 13], rows[20])
    np.testing.assert_array_equal(window[:, 0], rows[7])
    np.testing.assert_array_equal(window[:, 25], rows[32])


def test_rows_pick_the_driving_numbers() -> None:
    recon = np.arange(257, dtype=np.float32)[None]
    trans = np.array([[256, 256, 1.5, 7, 8]], np.float32)
    frame = co.frame_coefficients(recon, trans)
    assert frame.shape == (1, 262)
    expected = [*range(80, 144), *range(224, 227), *range(254, 257), 1.5, 7, 8]
    np.testing.assert_array_equal(co.driving_rows(frame)[0], np.array(expected, np.float32))


def test_slices_cover_the_layout_once() -> None:
    parts = (co.IDENTITY, co.EXPRESSION, co.TEXTURE, co.ANGLE, co.LIGHTING, co.TRANSLATION, slice(257, 259))
    covered = [index for part in (*parts, co.ALIGNMENT) for index in range(part.start, part.stop)]
    assert covered == list(range(262))


def test_expression_replaces_every_frame() -> None:
    frames = np.random.default_rng(1).standard_normal((3, 262)).astype(np.float32)
    template = np.linspace(-1, 1, 64, dtype=np.float32)
    rows = co.driving_rows(frames, template)
    np.testing.assert_array_equal(rows[:, co.ROW_EXPRESSION], np.tile(template, (3, 1)))
    np.testing.assert_array_equal(rows[:, co.ROW_ANGLE], frames[:, co.ANGLE])
    np.testing.assert_array_equal(rows[:, co.ROW_ALIGNMENT], frames[:, co.ALIGNMENT])


def test_wrong_shapes_and_values_are_our_fault() -> None:
    good = np.zeros((2, 257), np.float32)
    with pytest.raises(InternalError, match=r"expected \(n, 257\)"):
        co.frame_coefficients(good[:, :256], np.zeros((2, 5), np.float32))
    bad = good.copy()
    bad[1, 3] = np.nan
    with pytest.raises(InternalError, match=r"items \[1\]"):
        co.frame_coefficients(bad, np.zeros((2, 5), np.float32))
    with pytest.raises(InternalError, match="expected 0 to 1"):
        co.driving_window(np.zeros((2, 73), np.float32), 2)


def test_neutral_template_without_a_file_is_zero() -> None:
    np.testing.assert_array_equal(co.expression_template(), np.zeros(64, np.float32))


@pytest.mark.parametrize("compressed", [False, True])
def test_template_is_the_first_row(tmp_path: Path, compressed: bool) -> None:
    table = np.random.default_rng(2).standard_normal((4, 80))
    path = tmp_path / "expression.mat"
    savemat(path, {"expression_center": table, "expression_mouth": -table}, do_compression=compressed)
    np.testing.assert_array_equal(co.expression_template(path), table[0, :64].astype(np.float32))
    np.testing.assert_array_equal(co.expression_template(path, "mouth"), -table[0, :64].astype(np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other": np.zeros((1, 64))}, "expression_center is nothing"),
        ({"expression_center": np.zeros((1, 63))}, "63 numbers"),
        ({"expression_center": np.full((1, 64), np.nan)}, "64 numbers; expected 64 or more, all finite"),
        ({"expression_center": "text"}, "expression_center is char"),
        ({"expression_center": {"a": 1}}, "expression_center is struct"),
        ({"expression_center": np.zeros((0, 64))}, "expected a numeric 2-D array"),
        ({"expression_center": np.zeros((1, 64)) + 1j}, "expected a numeric 2-D array"),
    ],
)
def test_unfit_templates_are_refused(tmp_path: Path, content: dict[str, object], message: str) -> None:
    path = tmp_path / "expression.mat"
    savemat(path, content)
    with pytest.raises(CheckpointError, match=message):
        co.expression_template(path)


def test_unreadable_templates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "expression.mat"
    with pytest.raises(CheckpointError, match="FileNotFoundError"):
        co.expression_template(path)
    path.write_bytes(b"MATLAB 5.0 MAT-file" + b"\0" * 40)
    with pytest.raises(CheckpointError, match="expected a MATLAB 5 file"):
        co.expression_template(path)
    with path.open("wb") as file:
        file.truncate(co._LARGEST_TEMPLATE_FILE + 1)
    with pytest.raises(CheckpointError, match="bytes or fewer"):
        co.expression_template(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "expression.mat"
    savemat(path, {"expression_center": np.zeros((2, 1 << 20))}, do_compression=True)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match=r"expression_center is double \(2, 1048576\)"):
        co.expression_template(path)


def test_damaged_templates_give_a_template_or_a_named_error(tmp_path: Path) -> None:
    path = tmp_path / "expression.mat"
    savemat(path, {"expression_center": np.ones((1, 64))}, do_compression=True)
    intact = path.read_bytes()
    rng = np.random.default_rng(4)
    for _ in range(60):
        damaged = bytearray(intact)
        for position in rng.integers(0, len(intact), 3):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged[: rng.integers(1, len(intact) + 1)]))
        try:
            assert co.expression_template(path).shape == (64,)
        except CheckpointError:
            continue
