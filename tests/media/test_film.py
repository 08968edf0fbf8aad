"""Films contain the frames that were written."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from vizapp.media.film import to_gif, to_webm
from vizapp.media.samples import open_sample
from vizapp.media.transforms import resize

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


def frames(height: int, width: int) -> list[np.ndarray]:
    return [np.full((height, width, 3), colour, np.uint8) for colour in COLOURS]


def test_a_gif_has_the_frames_in_order_and_repeats() -> None:
    with Image.open(BytesIO(to_gif(frames(20, 31), per_second=10))) as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (4, (31, 20), 0)
        for number, colour in enumerate(COLOURS):
            film.seek(number)
            assert film.convert("RGB").getpixel((5, 5)) == colour
            assert film.info["duration"] == 100


def test_a_gif_of_a_still_photo_is_close_to_it_and_takes_little_room() -> None:
    photo = resize(open_sample("motorcycle").pixels, 160, 160)
    moving = []
    for n in range(40):
        frame = photo.copy()
        frame[60:80, 3 * n : 3 * n + 20] = 128
        moving.append(frame)
    file = to_gif(moving)
    with Image.open(BytesIO(file)) as film:
        assert film.n_frames == 40
        film.seek(20)
        assert np.abs(np.asarray(film.convert("RGB")).astype(int) - moving[20]).mean() < 6
    with_all = BytesIO()
    Image.fromarray(photo).quantize(256).save(with_all, "GIF")
    assert len(file) < 8 * len(with_all.getvalue())  # 40 whole frames would take 40 times the room


@pytest.mark.parametrize(("height", "width"), [(48, 64), (33, 47)])
def test_a_film_has_the_frames_in_order(height: int, width: int, tmp_path: Path) -> None:
    path = tmp_path / "film.webm"
    path.write_bytes(to_webm(frames(height, width), per_second=8))
    film = cv2.VideoCapture(str(path))
    assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(8)
    assert int(film.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*"VP80")
    for colour in COLOURS:
        there, bgr = film.read()
        assert there
        assert bgr.shape == (height + height % 2, width + width % 2, 3)
        assert np.abs(bgr[5, 5, ::-1].astype(int) - colour).max() < 12, "compressed, but the same colour"
    assert not film.read()[0]


def test_a_film_is_called_webm_in_its_header_and_written_silently(capfd: pytest.CaptureFixture[str]) -> None:
    file = to_webm(frames(48, 64))
    assert file[:4] == b"\x1aE\xdf\xa3"  # EBML (RFC 8794), whose header has one DocType
    header = file[5 : 5 + (file[4] & 0x7F)]
    assert header.count(b"\x42\x82\x84webm") == 1
    assert b"matroska" not in file
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("write", [to_gif, to_webm])
def test_frames_of_different_size_are_refused(write) -> None:
    for wrong in ([], [*frames(20, 20), *frames(20, 22)], [np.zeros((20, 20), np.uint8)], [np.zeros((9, 9, 3))]):
        with pytest.raises(ValueError, match="of one size"):
            write(wrong)
