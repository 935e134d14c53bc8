import numpy as np
import pytest
from PIL import Image

from drywall_seg.images import read_mask
from drywall_seg.inference import Predictor
from drywall_seg.inference.files import OutputNames, predict_files
from tests.inference.test_predict import Fake, photo


@pytest.fixture
def predictor():
    return Predictor(Fake())


def save(path, size_hw=(40, 64), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(*size_hw)).save(path, **options)
    return path


def written(out):
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_files_go_flat_and_folders_keep_their_shape(tmp_path, predictor):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "deep" / "b.jpg")
    save(tmp_path / "else" / "c.png")
    out = tmp_path / "out"
    prompts = ["segment crack", "segment taping area"]
    table, errors, renamed = predict_files(predictor, [tmp_path / "in", tmp_path / "else" / "c.png"], prompts, out)
    assert written(out) == [
        "a__segment_crack.png",
        "a__segment_taping_area.png",
        "c__segment_crack.png",
        "c__segment_taping_area.png",
        "deep/b__segment_crack.png",
        "deep/b__segment_taping_area.png",
    ]
    assert not errors
    assert not renamed
    assert len(table) == 6
    assert table.area_share.between(0.4, 0.6).all()


def test_two_photos_of_one_stem_do_not_overwrite_each_other(tmp_path, predictor):
    first, second, third = save(tmp_path / "a.png"), save(tmp_path / "a.jpg", (64, 40)), save(tmp_path / "x" / "A.png")
    out = tmp_path / "out"
    _, _, renamed = predict_files(predictor, [first, second, third], ["segment crack"], out)
    assert written(out) == ["A-3__segment_crack.png", "a-2__segment_crack.png", "a__segment_crack.png"]
    assert renamed == {str(second): "a-2", str(third): "A-3"}
    assert read_mask(out / "a-2__segment_crack.png").shape == (64, 40)


def test_a_broken_photo_is_named_and_the_others_go_on(tmp_path, predictor):
    for name in ("a.png", "c.png"):
        save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"broken")
    table, errors, _ = predict_files(predictor, [tmp_path], ["segment crack"], tmp_path / "out")
    assert list(errors) == [str(tmp_path / "b.png")]
    assert "b.png" in errors[str(tmp_path / "b.png")]
    assert len(table) == 2


def test_masks_below_the_folder_are_not_taken_for_photos(tmp_path, predictor):
    save(tmp_path / "a.png")
    for _ in range(2):
        table, _, _ = predict_files(predictor, [tmp_path], ["segment crack"], tmp_path / "masks")
        assert len(table) == 1


def test_masks_beside_their_photos_are_not_taken_for_photos_either(tmp_path, predictor):
    save(tmp_path / "a.png")
    for _ in range(2):
        table, _, _ = predict_files(predictor, [tmp_path], ["segment crack"], tmp_path)
        assert len(table) == 1
    assert written(tmp_path) == ["a.png", "a__segment_crack.png"]


def test_a_mask_that_cannot_be_written_is_named_and_the_others_go_on(tmp_path, predictor):
    long = save(tmp_path / f"{'x' * 240}.png")
    save(tmp_path / "z.png")
    table, errors, _ = predict_files(predictor, [tmp_path], ["segment crack"], tmp_path / "out")
    assert list(errors) == [str(long)]
    assert table.photo.tolist() == [str(tmp_path / "z.png")]


def test_a_phone_photo_gives_an_upright_mask(tmp_path, predictor):
    exif = Image.new("RGB", (1, 1)).getexif()
    exif[0x0112] = 6  # stored lying, to be turned to the right
    path = save(tmp_path / "phone.jpg", (48, 64), exif=exif)
    predict_files(predictor, [path], ["segment crack"], tmp_path / "out")
    mask = read_mask(tmp_path / "out" / "phone__segment_crack.png")
    assert mask.shape == (64, 48)
    assert mask[:, 40:].mean() > 200  # the stored upper half is the upright photo's right half
    assert mask[:, :8].mean() < 50
    with Image.open(tmp_path / "out" / "phone__segment_crack.png") as written_mask:
        assert (written_mask.mode, written_mask.size) == ("L", (48, 64))
    assert set(np.unique(mask)) <= {0, 255}


@pytest.mark.parametrize(
    ("paths", "prompts", "message"),
    [
        (["gone.png"], ["segment crack"], "gone.png"),
        (["empty"], ["segment crack"], "no photo"),
        (["a.png"], ["segment crack", "Segment crack."], "saved as"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, predictor, paths, prompts, message):
    save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        predict_files(predictor, [tmp_path / path for path in paths], prompts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_output_names_are_kept_per_image():
    names = OutputNames()
    assert names.stem("x/a.png", "a") == "a"
    assert names.stem("y/a.png", "a") == "a-2"
    assert names.stem("x/a.png", "a") == "a"
    assert names.stem("z/a-2.png", "a-2") == "a-2-2"
