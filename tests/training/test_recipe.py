"""The recipe of the shipped weights, for two epochs of its own."""

from pathlib import Path

import pytest

from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import build_manifest
from drywall_seg.training.run import train_run

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real exports are not here")
def test_two_epochs_of_the_recipe_learn(tmp_path):
    config = resolve_config(
        preset="compact_scratch", epochs=2, data_root=str(DATA), outputs_root=str(tmp_path / "outputs"), run_name="two"
    )
    history = train_run(config, build_manifest(DATA, tmp_path / "data"))
    last = history.iloc[-1]
    assert last.val_crack_mean_iou > 0.38
    assert last.val_taping_area_mean_iou > 0.42
    assert last.val_joint_line_mean_iou > 0.4
