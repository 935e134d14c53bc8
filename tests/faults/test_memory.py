import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.table import READ
from tests.models.clipseg_folders import tiny_clipseg_folder

ROOT = Path(__file__).parents[2]


@pytest.mark.fault("machines", READ)
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells anonymous memory apart")
def test_memory_does_not_grow_with_the_data(sample_root, tmp_path):
    tiny_clipseg_folder(tmp_path / "tiny", real=False)
    taken = {}
    for n_rows in (1_000, 10_000):
        command = [sys.executable, "-m", "tests.faults.memory", str(sample_root), str(tmp_path), str(n_rows)]
        ran = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        steps, megabytes = ran.stdout.split()
        assert int(steps) == -(-n_rows // 16)
        taken[n_rows] = float(megabytes)
    print(f"\nRssAnon in MB by rows: {taken}")
    assert taken[10_000] <= 1.1 * taken[1_000], taken
