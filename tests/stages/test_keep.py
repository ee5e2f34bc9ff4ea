"""A stage that starts again on the same settings, code and inputs puts its results back instead of making them again."""

import pytest

from mscl.stages.keep import identity, kept
from mscl.stages.table import STAGES
from mscl.store.index import again


def made(outputs, made_from, text="made", stamps=()) -> bool:
    """Whether the body ran."""
    with kept(outputs, made_from, stamps) as unchanged:
        if not unchanged:
            for path in outputs:
                path.write_text(text)
    return not unchanged


@pytest.fixture
def outputs(tmp_path):
    return [tmp_path / "a.parquet", tmp_path / "a.tar"]


def test_what_snakemake_has_deleted_comes_back(outputs):
    assert made(outputs, "x")
    inodes = [p.stat().st_ino for p in outputs]
    for path in outputs:
        path.unlink()
    assert not made(outputs, "x")
    assert [p.read_text() for p in outputs] == ["made", "made"] and [p.stat().st_ino for p in outputs] == inodes


def test_other_settings_code_or_inputs_make_it_again(outputs):
    made(outputs, "x")
    assert made(outputs, "y", text="other") and outputs[0].read_text() == "other"
    assert made(outputs, "x") and outputs[0].read_text() == "made"  # only the last results are kept


def test_videos_may_be_deleted_after_use_but_not_replaced(outputs):
    """The second video was missing when the frames were extracted."""
    assert made(outputs, "x", stamps=[[10, 7], None])
    assert not made(outputs, "x", stamps=[[10, 7], None])
    assert not made(outputs, "x", stamps=[None, None])  # deleted to save space: the frames stay
    assert made(outputs, "x", stamps=[[10, 8], None])  # replaced
    assert made(outputs, "x", stamps=[[10, 8], [5, 5]])  # arrived
    assert made(outputs, "x", stamps=[[10, 8]])  # another list


def test_a_failure_leaves_what_was_kept(outputs):
    made(outputs, "x")
    with pytest.raises(ValueError), kept(outputs, "y") as unchanged:
        assert not unchanged
        for path in outputs:
            path.unlink()  # as Snakemake does
        raise ValueError
    assert not made(outputs, "x") and outputs[1].read_text() == "made"


def test_a_part_of_the_outputs_alone_is_not_taken(outputs, tmp_path):
    made(outputs, "x")
    (tmp_path / ".a.tar.kept").unlink()
    assert made(outputs, "x")


def test_a_damaged_store_is_made_again_as_its_message_says(outputs, tmp_path):
    """The kept link is the same file, so a disk that damages one damages both."""
    made(outputs, "x")
    with open(outputs[1], "r+") as file:
        file.write("DAMA")
    said = again(outputs[0])
    for path in (outputs[1], tmp_path / ".a.tar.kept"):
        assert path.name in said
        path.unlink()
    assert made(outputs, "x") and outputs[1].read_text() == "made"


def test_a_damaged_record_is_no_reason_to_fail(outputs, tmp_path):
    made(outputs, "x")
    (tmp_path / ".a.parquet.kept.json").write_text("{torn")
    assert made(outputs, "x") and not made(outputs, "x")


def test_the_identity_holds_settings_and_inputs(prepared, tmp_path):
    job = STAGES["flow"].settings(prepared, {})
    source = tmp_path / "index"
    source.write_text("one")
    one = identity("flow", job, [source])
    assert identity("flow", job, [source]) == one
    source.write_text("two")
    assert identity("flow", job, [source]) != one
    assert identity("flow", job.model_copy(update={"device": "cuda"}), [source]) != identity("flow", job, [source])
