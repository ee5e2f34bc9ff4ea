"""The same commands in the surroundings that people have: names of the checkout, environments, a user without a name."""

import os
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import tiny_config
from tests.workflow.conftest import copy_code, run_snakemake

LONG = "a-temporary-folder-with-a-very-long-name/" * 3

SURROUNDINGS = {
    "a checkout with braces, blanks, a quote, an umlaut and #": ("a{b}c 'ü #1", {}),
    "the C locale and a long TMPDIR": ("plain", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TMPDIR": LONG}),
    "colours forced and other packages": ("plain", {"AV_LOG_FORCE_COLOR": "1", "FORCE_COLOR": "1", "PYTHONPATH": "others"}),
}


@pytest.mark.parametrize("case", SURROUNDINGS)
def test_videos_become_frames(case, tmp_path):
    name, environment = SURROUNDINGS[case]
    folder = tmp_path / name
    folder.mkdir()
    copy_code(folder)
    (tmp_path / "others" / "mscl").mkdir(parents=True)
    (tmp_path / "others" / "mscl" / "__init__.py").write_text("raise ImportError('another package of this name')")
    environment = {k: str(tmp_path / v) if k in ("TMPDIR", "PYTHONPATH") else v for k, v in environment.items()}
    if "TMPDIR" in environment:
        os.makedirs(environment["TMPDIR"])
    run = run_snakemake(folder, "extracted", config=tiny_config(Path(".")), env=os.environ | environment)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    rows = pd.concat(map(pd.read_parquet, (folder / "data" / "frames").rglob("*.parquet")))
    assert len(rows) == 60 and set(rows.status) == {"ok"}, rows.reason.unique()
