import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from drywall_seg.images import ImageError, Letterbox, list_images, normalise, read_image, read_mask
from tests.faults.table import READ, REFUSED

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def save(tmp_path, image, name, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("suffix", ["png", "tiff", "bmp", "webp"])
def test_lossless_formats_come_back_as_they_were(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(read_image(save(tmp_path, Image.fromarray(RGB), f"a.{suffix}", **options)), RGB)


def test_jpeg_comes_back_nearly(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (48, 1, 3))
    read = read_image(save(tmp_path, Image.fromarray(smooth), "a.jpg", quality=95))
    assert np.abs(read.astype(int) - smooth).max() <= 8


def test_grey_and_palette(tmp_path):
    assert np.array_equal(read_image(save(tmp_path, Image.fromarray(GREY), "g.png")), np.dstack([GREY] * 3))
    few = Image.fromarray(RGB // 128 * 255).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(read_image(save(tmp_path, few, "p.png")), np.asarray(few.convert("RGB")))


def test_16_bit_grey_keeps_its_brightness(tmp_path):
    wide = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert np.array_equal(read_image(save(tmp_path, wide, "w.png")), np.dstack([GREY] * 3))
    assert np.array_equal(read_image(save(tmp_path, wide, "w.tif")), np.dstack([GREY] * 3))


def test_float_grey(tmp_path):
    floats = Image.fromarray(GREY.astype(np.float32) / 255)
    assert np.array_equal(read_image(save(tmp_path, floats, "f.tif")), np.dstack([GREY] * 3))
    broken = Image.fromarray(np.full((2, 2), np.nan, np.float32))
    with pytest.raises(ImageError, match=r"n\.tif"):
        read_image(save(tmp_path, broken, "n.tif"))


def test_transparency_is_laid_on_white(tmp_path):
    alpha = np.zeros((6, 9), np.uint8)
    alpha[:, :4] = 255
    read = read_image(save(tmp_path, Image.fromarray(np.dstack([RGB, alpha])), "a.png"))
    assert np.array_equal(read[:, :4], RGB[:, :4])
    assert (read[:, 4:] == 255).all()


def test_cmyk(tmp_path):
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert read_image(save(tmp_path, white, "c.jpg")).min() > 250


@pytest.mark.fault("images", READ)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = orientation
    read = read_image(save(tmp_path, image, "o.png", exif=exif))
    turned = {3: lambda a: a[::-1, ::-1], 6: lambda a: np.rot90(a, -1), 8: lambda a: np.rot90(a)}
    if orientation in turned:
        assert np.array_equal(read, turned[orientation](RGB))
    assert read.shape == ((9, 6, 3) if orientation >= 5 else (6, 9, 3))


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12"]
)
def test_damaged_exif_does_not_cost_the_photo(tmp_path, exif):
    path = save(tmp_path, Image.fromarray(RGB), "e.png", exif=exif)
    assert read_image(path).shape == RGB.shape


def test_an_error_of_the_orientation_alone_is_overlooked(tmp_path, monkeypatch):
    def fail(_):
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr("drywall_seg.images.ImageOps.exif_transpose", fail)
    assert np.array_equal(read_image(save(tmp_path, Image.fromarray(RGB), "e.png")), RGB)


def test_arrays_and_pil_images():
    assert np.array_equal(read_image(RGB), RGB)
    assert np.array_equal(read_image(Image.fromarray(RGB)), RGB)
    for bad in (GREY, RGB.astype(float), RGB[:0], np.dstack([RGB, GREY])):
        with pytest.raises(ImageError, match="uint8"):
            read_image(bad)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0garbage"])
def test_what_is_no_image_is_named(tmp_path, content):
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        read_image(tmp_path / "bad.jpg")


def test_missing_and_truncated_files_are_named(tmp_path):
    with pytest.raises(ImageError, match="gone.jpg: no such file"):
        read_image(tmp_path / "gone.jpg")
    whole = save(tmp_path, Image.fromarray(np.tile(RGB, (20, 20, 1))), "t.jpg").read_bytes()
    (tmp_path / "t.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"t\.jpg.*truncated"):
        read_image(tmp_path / "t.jpg")


def test_masks_have_two_values(tmp_path):
    mask = np.uint8([[0, 255], [255, 0]])
    assert np.array_equal(read_mask(save(tmp_path, Image.fromarray(mask), "m.png")), mask)
    for name, bad in {"v.png": mask // 255, "c.png": np.dstack([mask] * 3)}.items():
        with pytest.raises(ImageError, match=name):
            read_mask(save(tmp_path, Image.fromarray(bad), name))


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([64, 320, 352]))
def test_letterbox_keeps_the_shape(height, width, size):
    box = Letterbox.fit((height, width), size)
    assert max(box.content_hw) == size
    assert min(box.content_hw) >= 1
    for side, content in zip((height, width), box.content_hw, strict=True):
        assert abs(content - side * size / max(height, width)) <= 1
    assert box.valid().sum() == box.content_hw[0] * box.content_hw[1]


@pytest.mark.parametrize("size_hw", [(48, 64), (64, 48), (64, 64), (500, 100), (3, 200), (1, 1)])
def test_letterbox_puts_a_mask_back_where_it_was(size_hw):
    photo = np.zeros((*size_hw, 3), np.uint8)
    photo[size_hw[0] // 2 :, size_hw[1] // 3 :] = 255
    box = Letterbox.fit(size_hw, 64)
    canvas = box.pixels(photo)
    assert canvas.shape == (64, 64, 3)
    assert (canvas[~box.valid()] == 127).all()
    back = box.restore(canvas[..., 0].astype(np.float32))
    assert back.shape == size_hw
    assert back.dtype == np.float32
    wrong = (back > 127) != (photo[..., 0] > 127)
    assert wrong.mean() <= 2 / min(size_hw)  # the two edges' own pixels at most


def test_normalise():
    pixels = normalise(np.full((2, 2, 3), 127, np.uint8), (127 / 255,) * 3, (128 / 255,) * 3)
    assert pixels.shape == (3, 2, 2)
    assert np.abs(pixels).max() < 1e-6
    assert normalise(np.full((1, 1, 3), 255, np.uint8), (0, 0.5, 1), (1, 0.5, 0.5)).ravel().tolist() == [1, 1, 0]


def test_list_images_is_sorted_and_leaves_hidden_ones(tmp_path):
    for name in ("b.JPG", "a/c.png", ".hidden/d.png", "a/.partial-1-e.png", "notes.txt", "d.HEIC"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)] == ["a/c.png", "b.JPG", "d.HEIC"]


@pytest.mark.fault("images", REFUSED)
def test_too_large_is_refused_by_its_header_in_plain_words(tmp_path):
    path = tmp_path / "wall.png"
    Image.new("1", (10_050, 20_000)).save(path)
    with pytest.raises(ImageError, match=r"wall.png: 201 megapixels, more than 200; cut it into smaller photos"):
        read_image(path)
