"""What `--expression` names: words, mixtures, pictures, videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dubstream.engines.errors import LimitError, MediaError, UsageError
from dubstream.runtime.expression import (
    ExpressionOptions,
    FaceSource,
    TemplateMix,
    find_templates,
    parse_expression,
)
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.picture import read_picture


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    path = tmp_path / "expression.mat"
    table = np.random.default_rng(3).standard_normal((2, 64))
    savemat(path, {"expression_center": table[:1], "expression_mouth": table[1:]})
    return path


def test_words_mixtures_and_files() -> None:
    assert parse_expression("smile") == TemplateMix("smile", 0.0, "smile")
    assert parse_expression("neutral:0.4:smile") == TemplateMix("neutral", 0.4, "smile")
    assert parse_expression("faces/glad.PNG") == FaceSource(Path("faces/glad.PNG"), is_picture=True)
    assert parse_expression("a:b.mp4") == FaceSource(Path("a:b.mp4"), is_picture=False)


@pytest.mark.parametrize(
    "text",
    ["", "glad", "neutral:smile", "neutral:1.1:smile", "neutral:nan:smile", "neutral:x:smile", "a.txt"],
)
def test_anything_else_is_refused_with_what_would_do(text: str) -> None:
    with pytest.raises(UsageError, match=r"neutral:0\.4:smile"):
        parse_expression(text)


def test_the_old_way_of_naming_the_file_is_pointed_to_the_new_one() -> None:
    with pytest.raises(UsageError, match=r"--expression-templates expression\.mat"):
        parse_expression("expression.mat")


def test_a_mixture_is_a_point_on_the_line_and_its_ends_are_the_templates(templates: Path) -> None:
    neutral, smile = (parse_expression(word).values(templates) for word in ("neutral", "smile"))
    assert np.abs(neutral - smile).max() > 1
    for share in (0.2, 0.4, 0.6, 0.8):
        found = parse_expression(f"neutral:{share}:smile").values(templates)
        np.testing.assert_allclose(found, neutral + share * (smile - neutral), atol=1e-6)
    np.testing.assert_array_equal(parse_expression("neutral:0:smile").values(templates), neutral)
    np.testing.assert_array_equal(parse_expression("neutral:1:smile").values(templates), smile)


@pytest.mark.parametrize("source", ["smile", "neutral:0.4:smile", "smile:0.5:smile"])
def test_without_the_file_only_neutral_works(source: str) -> None:
    with pytest.raises(UsageError, match=r"--expression-templates expression\.mat"):
        ExpressionOptions(source)
    assert not ExpressionOptions("neutral").parsed.values(None).any()
    ExpressionOptions("face.png")  # needs no templates


def test_the_file_is_found_among_the_checkpoints(templates: Path) -> None:
    assert find_templates(None, templates.parent) == templates
    assert find_templates(Path("mine.mat"), templates.parent) == Path("mine.mat")
    assert find_templates(None, templates.parent / "elsewhere") is None
    assert find_templates(None, None) is None


def test_pictures_are_upright_bgr(tmp_path: Path) -> None:
    bgr = np.random.default_rng(5).integers(0, 255, (24, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), bgr)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", MediaLimits()), bgr)
    turned = Image.fromarray(np.ascontiguousarray(bgr[..., ::-1]))
    tags = Image.Exif()
    tags[0x0112] = 6  # the camera lay on its side
    turned.save(tmp_path / "b.png", exif=tags)
    np.testing.assert_array_equal(
        read_picture(tmp_path / "b.png", MediaLimits()), np.rot90(bgr, -1), strict=True
    )


def test_unfit_pictures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(MediaError, match="cannot read"):
        read_picture(path, MediaLimits())
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.raises(MediaError, match="could not read"):
        read_picture(path, MediaLimits())
    Image.new("RGB", (40, 30)).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").replace(path)
    with pytest.raises(MediaError, match="could not read"):
        read_picture(path, MediaLimits())
    Image.new("RGB", (40, 30)).save(path)
    with pytest.raises(LimitError, match="--max-pixels"):
        read_picture(path, MediaLimits(max_pixels=1199))
