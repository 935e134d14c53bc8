"""Photos that are broken, disguised, odd or dangerous: each is refused in one line that names it, or read as it is."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from drywall_seg.images import ImageError, list_images, read_image, read_mask
from drywall_seg.inference import Predictor
from drywall_seg.inference.files import Wanted, predict_files
from tests.faults.table import READ, REFUSED
from tests.inference.test_predict import Fake

SMOOTH = np.add.outer(np.arange(24), 2 * np.arange(32))[..., None].astype(np.uint8) * np.uint8([2, 1, 1])
RGB = Image.fromarray(SMOOTH)
WHITE = np.full_like(SMOOTH, 255)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width, height, *chunks, depth=8, color=2):
    """A PNG with these dimensions in its header, and chunks of (name, data)."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    packed = (struct.pack(">I", len(data)) + n + data + struct.pack(">I", zlib.crc32(n + data)) for n, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def jpeg(height, width):
    """A JPEG that says that it has these dimensions."""
    data = bytearray(JPEG)
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def tiff(values, **tags):
    """A TIFF of an array, with other values of its tags than are right."""
    data = bytearray(encoded(Image.fromarray(values), "TIFF"))
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    places = {struct.unpack_from("<H", data, place)[0]: place for place in range(directory + 2, len(data), 12)[:count]}
    for name, value in tags.items():
        struct.pack_into("<HII", data, places[getattr(TiffImagePlugin, name)] + 2, 4, 1, value)
    return bytes(data)


def with_exif(data):
    """A JPEG with this for EXIF."""
    segment = b"Exif\0\0" + data
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + JPEG[2:]


def exif(kind, count, value, tag=0x0112, first=8):
    """EXIF of one entry, the orientation's."""
    return struct.pack(">2sHIHHHIII", b"MM", 42, first, 1, tag, kind, count, value, 0)


JPEG, PNG = encoded(RGB, "JPEG", quality=95), encoded(RGB, "PNG")
EXIF = RGB.getexif()
EXIF[0x0112] = 6
FLOATS = np.zeros((4, 4), np.float32)
IDAT = (b"IDAT", zlib.compress(bytes(33 * 24 * 3)))
LONG = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000)))
BROKEN, NO_FILE = "cannot be read as an image", "not a file"
MEGAPIXELS = "megapixels, more than 200; cut it|exceeds limit of 400000000 pixels"


def half(data):
    return data[: len(data) // 2]


def bmp(width, height):
    data = bytearray(encoded(RGB, "BMP"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


REFUSED_IMAGES = {
    "PNG of 10 gigapixels.png": (png(100_000, 100_000, IDAT), MEGAPIXELS),
    "PNG with the most pixels a header can tell.png": (png(2**31 - 1, 2**31 - 1, IDAT), f"{MEGAPIXELS}|{BROKEN}"),
    "JPEG of 4 gigapixels.jpg": (jpeg(65_500, 65_500), MEGAPIXELS),
    "BMP of 10 gigapixels.bmp": (bmp(100_000, 100_000), f"{MEGAPIXELS}|{BROKEN}"),
    "GIF of 4 gigapixels.gif": (
        b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(3) + b";",
        f"{MEGAPIXELS}|{BROKEN}",
    ),
    "TIFF of 10 gigapixels.tif": (tiff(SMOOTH, IMAGEWIDTH=100_000, IMAGELENGTH=100_000), f"{MEGAPIXELS}|{BROKEN}"),
    "text that unpacks to 100 MB.png": (png(32, 24, LONG, IDAT), BROKEN),
    "JPEG cut.jpg": (half(JPEG), "[Tt]runcated"),
    "PNG cut.png": (half(PNG), BROKEN),
    "TIFF cut.tif": (half(tiff(SMOOTH)), BROKEN),
    "WebP cut.webp": (half(encoded(RGB, "WEBP", lossless=True)), BROKEN),
    "BMP cut.bmp": (half(encoded(RGB, "BMP")), "truncated"),
    "GIF cut.gif": (half(encoded(RGB, "GIF")), BROKEN),
    "JPEG without its picture.jpg": (JPEG[: JPEG.index(b"\xff\xda")], BROKEN),
    "PNG without its picture.png": (png(32, 24), BROKEN),
    "PNG with a wrong checksum.png": (PNG.replace(b"IDAT", b"IDAT\1", 1), BROKEN),
    "PNG of no size.png": (png(0, 0, IDAT), BROKEN),
    "PNG of a palette that is missing.png": (png(32, 24, IDAT, depth=3, color=3), BROKEN),
    "JPEG of no height.jpg": (jpeg(0, 32), BROKEN),
    "BMP of no width.bmp": (bmp(0, 24), BROKEN),
    "TIFF whose data lie elsewhere.tif": (tiff(SMOOTH, STRIPOFFSETS=10**9), BROKEN),
    "TIFF of an unknown packing.tif": (tiff(SMOOTH, COMPRESSION=4711), BROKEN),
    "TIFF of nine channels.tif": (tiff(SMOOTH, SAMPLESPERPIXEL=9), BROKEN),
    "TIFF that is only a head.tif": (b"II*\0\x08\0\0\0", BROKEN),
    "NaN.tif": (tiff(FLOATS + np.nan), "values of its F pixels are not within 0 to 65535"),
    "inf.tif": (tiff(FLOATS + np.inf), "values of its F pixels are not within 0 to 65535"),
    "below zero.tif": (tiff(FLOATS - 1), "values of its F pixels are not within 0 to 65535"),
    "beyond 16 bits.tif": (tiff(np.full((4, 4), 2**30, np.int32)), "values of its I pixels are not within 0 to 65535"),
    "no bytes.jpg": (b"", BROKEN),
    "zeros.jpg": (bytes(9999), BROKEN),
    "a sentence.jpg": (b"no photo", BROKEN),
    "a web page.jpg": (b"<!DOCTYPE html><html><img src=x></html>", BROKEN),
    "a drawing, SVG.png": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', BROKEN),
    "a document, PDF.jpg": (b"%PDF-1.7\n1 0 obj<<>>endobj", BROKEN),
    "a zip.jpg": (b"PK\x03\x04" + bytes(99), BROKEN),
    "a program for a printer, EPS.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", BROKEN),
    "JPEG 2000.jpg": (encoded(RGB, "JPEG2000"), BROKEN),
    "an icon.png": (encoded(RGB, "ICO"), BROKEN),
    "a texture, DDS.png": (encoded(RGB, "DDS"), BROKEN),
    "a pointer to Git LFS.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", BROKEN),
    "a folder.jpg": (os.mkdir, NO_FILE),
    "a pipe.jpg": (os.mkfifo, NO_FILE),
    "a device.jpg": (lambda path: os.symlink("/dev/zero", path), NO_FILE),
    "a link to nothing.jpg": (lambda path: os.symlink("nothing", path), "no such file"),
    "a link to itself.jpg": (lambda path: os.symlink(path.name, path), BROKEN),
    "a link to a folder.jpg": (lambda path: os.symlink(".", path), NO_FILE),
    "not there.jpg": (lambda path: None, "no such file"),
}


def put(folder, name, content):
    """Writes a case's file, and returns its path."""
    path = folder / name
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    return path


@pytest.mark.fault("images", REFUSED)
@pytest.mark.filterwarnings("ignore")  # Pillow's, on what it meets
@pytest.mark.parametrize("name", REFUSED_IMAGES)
def test_a_hostile_image_is_refused(tmp_path, name):
    content, message = REFUSED_IMAGES[name]
    path = put(tmp_path, name, content)
    with pytest.raises(ImageError, match=message) as failure:
        read_image(path)
    assert str(path) in str(failure.value) and "\n" not in str(failure.value)


def frames(kind, first=RGB, **options):
    """An animation of which all but the first picture is white."""
    return encoded(first, kind, save_all=True, append_images=[Image.fromarray(WHITE)] * 2, **options)


def transparent(image, alpha):
    image.putalpha(Image.fromarray(alpha))
    return image


ALPHA = np.uint8(255) * (np.arange(32) < 16)[None].repeat(24, 0)
ON_WHITE = np.where(ALPHA[..., None] > 0, SMOOTH, 255).astype(np.uint8)
GREY = np.dstack([SMOOTH[..., 1]] * 3)
BLACK_OR_NOT = RGB.convert("1")
TURNED = np.rot90(SMOOTH, -1)
PALETTE = RGB.quantize(2)
TWO = np.asarray(PALETTE.convert("RGB"))
FIRST_IS_CLEAR = np.where(np.asarray(PALETTE)[..., None] == 0, 255, TWO).astype(np.uint8)

READ_IMAGES = {
    "a PNG named.jpg": (PNG, SMOOTH),
    "a JPEG named.png": (JPEG, SMOOTH),
    "a TIFF named.webp": (tiff(SMOOTH), SMOOTH),
    "upper case.JPG": (JPEG, SMOOTH),
    "no suffix": (PNG, SMOOTH),
    "progressive.jpg": (encoded(RGB, "JPEG", quality=95, progressive=True), SMOOTH),
    "grey.jpg": (encoded(Image.fromarray(GREY[..., 0]), "JPEG", quality=95), GREY),
    "CMYK.jpg": (encoded(RGB.convert("CMYK"), "JPEG", quality=95), SMOOTH),
    "CMYK.tif": (encoded(RGB.convert("CMYK"), "TIFF"), SMOOTH),
    "16 bit grey.png": (encoded(Image.fromarray(GREY[..., 0].astype(np.uint16) * 257), "PNG"), GREY),
    "16 bit grey.tif": (tiff(GREY[..., 0].astype(np.uint16) * 257), GREY),
    "32 bit floats.tif": (tiff(GREY[..., 0].astype(np.float32) / 255), GREY),
    "1 bit.png": (encoded(BLACK_OR_NOT, "PNG"), np.asarray(BLACK_OR_NOT.convert("RGB"))),
    "CIELAB.tif": (encoded(Image.new("LAB", (32, 24), (255, 128, 128)), "TIFF"), WHITE),
    "packed by LZW.tif": (encoded(RGB, "TIFF", compression="tiff_lzw"), SMOOTH),
    "packed by deflate.tif": (encoded(RGB, "TIFF", compression="tiff_adobe_deflate"), SMOOTH),
    "packed by JPEG.tif": (encoded(RGB, "TIFF", compression="jpeg", quality=95), SMOOTH),
    "BigTIFF.tif": (encoded(RGB, "TIFF", big_tiff=True), SMOOTH),
    "animated.gif": (frames("GIF", PALETTE), TWO),
    "animated.webp": (frames("WEBP", lossless=True), SMOOTH),
    "animated.png": (frames("PNG"), SMOOTH),
    "three pages.tif": (frames("TIFF"), SMOOTH),
    "two pictures of a phone, MPO.jpg": (frames("MPO", quality=95), SMOOTH),
    "transparent.png": (encoded(transparent(RGB.copy(), ALPHA), "PNG"), ON_WHITE),
    "transparent.webp": (encoded(transparent(RGB.copy(), ALPHA), "WEBP", lossless=True), ON_WHITE),
    "palette.png": (encoded(PALETTE, "PNG"), TWO),
    "palette with a clear colour.png": (encoded(PALETTE, "PNG", transparency=0), FIRST_IS_CLEAR),
    "palette with clear colours.png": (encoded(PALETTE, "PNG", transparency=bytes([0, 255])), FIRST_IS_CLEAR),
    "one pixel.png": (encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), np.uint8([[[1, 2, 3]]])),
    "1 x 20,000.png": (encoded(Image.new("RGB", (1, 20_000)), "PNG"), np.zeros((20_000, 1, 3), np.uint8)),
    "20,000 x 1.png": (encoded(Image.new("RGB", (20_000, 1)), "PNG"), np.zeros((1, 20_000, 3), np.uint8)),
    "turned by EXIF.png": (encoded(RGB, "PNG", exif=EXIF), TURNED),
    "turned by EXIF.jpg": (encoded(RGB, "JPEG", exif=EXIF, quality=95), TURNED),
    "turned by EXIF.webp": (encoded(RGB, "WEBP", exif=EXIF, lossless=True), TURNED),
    "EXIF of noise.jpg": (with_exif(bytes(range(256))), SMOOTH),
    "EXIF that is cut.jpg": (with_exif(exif(3, 1, 6 << 16)[:12]), SMOOTH),
    "EXIF that leads to itself.jpg": (with_exif(exif(3, 1, 6 << 16, first=0)), SMOOTH),
    "EXIF that leads outside.jpg": (with_exif(exif(3, 1, 6 << 16, first=2**31)), SMOOTH),
    "an orientation of 99.jpg": (with_exif(exif(3, 1, 99 << 16)), SMOOTH),
    "an orientation of text.jpg": (with_exif(exif(2, 4, 0x41414100)), SMOOTH),
    "a billion orientations.jpg": (with_exif(exif(3, 10**9, 8)), SMOOTH),
    "a colour profile of noise.jpg": (encoded(RGB, "JPEG", quality=95, icc_profile=bytes(999)), SMOOTH),
    "a zip behind it.jpg": (JPEG + b"PK\x05\x06" + bytes(18), SMOOTH),
    "a chunk nobody knows.png": (PNG[:33] + png(1, 1, (b"heLP", b"x"))[33:46] + PNG[33:], SMOOTH),
    "a link to a photo.png": (lambda path: (put(path.parent, ".photo", PNG), os.symlink(".photo", path)), SMOOTH),
}


@pytest.mark.fault("images", READ)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READ_IMAGES)
def test_an_odd_image_is_read_as_it_is(tmp_path, name):
    content, expected = READ_IMAGES[name]
    read = read_image(put(tmp_path, name, content))
    assert read.dtype == np.uint8 and read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).max() <= 12, "more than JPEG or a palette explains"


@pytest.mark.fault("images", READ)
@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_them_names_each_broken_one_and_goes_on(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, (content, _) in (REFUSED_IMAGES | READ_IMAGES).items():
        put(folder, name, content)
    photos = {path.name for path in list_images(folder)}
    broken = photos & REFUSED_IMAGES.keys()
    left_out = {
        "a folder.jpg",
        "a link to a folder.jpg",
        "not there.jpg",
        *(n for n in REFUSED_IMAGES if n.endswith("gif")),
    }
    assert REFUSED_IMAGES.keys() - photos == left_out
    predictor = Predictor(Fake())
    predictor.tile = 0  # the long ones would take seconds
    table, errors, _ = predict_files(predictor, [folder], Wanted(("segment crack",)), tmp_path / "out")
    assert set(errors) == {str(folder / name) for name in broken}
    assert all(photo in message for photo, message in errors.items())
    assert len(table) == len(photos - broken) > 30


MASK = np.uint8([[0, 255], [255, 0]])
REFUSED_MASKS = {
    "a bomb": (png(100_000, 100_000, IDAT, color=0), "cannot be read as a mask"),
    "cut": (
        half(encoded(Image.fromarray(np.kron(MASK, np.ones((99, 99), np.uint8))), "PNG")),
        "cannot be read as a mask",
    ),
    "a JPEG": (encoded(Image.fromarray(MASK), "JPEG"), "cannot be read as a mask"),
    "no bytes": (b"", "cannot be read as a mask"),
    "three channels": (encoded(Image.fromarray(np.dstack([MASK] * 3)), "PNG"), "a mask is one 8-bit channel"),
    "16 bits": (encoded(Image.fromarray(MASK.astype(np.uint16)), "PNG"), "a mask is one 8-bit channel"),
    "1 bit": (encoded(Image.fromarray(MASK).convert("1"), "PNG"), "a mask is one 8-bit channel"),
    "a grey pixel": (encoded(Image.fromarray(MASK | np.uint8(1)), "PNG"), "the values 0 and 255"),
    "a folder": (os.mkdir, NO_FILE),
    "a pipe": (os.mkfifo, NO_FILE),
}


@pytest.mark.fault("images", REFUSED)
@pytest.mark.parametrize("name", REFUSED_MASKS)
def test_a_hostile_mask_is_refused(tmp_path, name):
    content, message = REFUSED_MASKS[name]
    path = put(tmp_path, "mask.png", content)
    with pytest.raises(ImageError, match=message) as failure:
        read_mask(path)
    assert str(path) in str(failure.value)
