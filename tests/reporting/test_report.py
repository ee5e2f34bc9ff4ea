import json
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest

from mscl.reporting.curves import curves
from mscl.reporting.report import build_report, print_tables
from mscl.stages.jobs import ReportJob


class Page(HTMLParser):
    """Collects the ids, the links and everything that a browser would load."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.loaded += [found[k] for k in ("src", "srcset", "data", "poster") if k in found] + (
            [found["href"]] if tag == "link" else []
        )


@pytest.fixture(scope="module")
def page(shared_report):
    return Page((shared_report / "index.html").read_text())


def test_the_page_loads_nothing(shared_report, page):
    assert page.loaded and all(link.startswith("data:image/png;base64,") for link in page.loaded)
    text = re.sub(r"data:image/png;base64,[^\"]*", "", (shared_report / "index.html").read_text())
    assert not re.search(r"url\(|@import|https?://", text)


def test_every_link_resolves_and_ids_are_unique(page):
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert sum(link.startswith("#card-") for link in page.links) > 40


def test_every_card_is_a_file_and_a_section(shared_report, page):
    files = {path.stem for path in (shared_report / "cards").glob("*.json")}
    assert files == {i.removeprefix("card-") for i in page.ids if i.startswith("card-")} and len(files) == 17
    card = json.loads((shared_report / "cards" / "finetune-toy-r18-mscl-seed1.json").read_text())
    assert card["seed"] == 1 and len(card["inputs"]) == 20


def test_text_from_data_is_escaped(shared_report):
    text = (shared_report / "index.html").read_text()
    assert (
        "&lt;moov atom&gt;" in text
        and "<moov" not in text
        and "Showing something &amp; turning it" in text
        and "&lt;&amp;&gt;" in text
    )


def test_the_banner_says_what_the_numbers_are(shared_report, shared_tree, tmp_path, synthetic):
    assert "Demo numbers are not paper numbers" in (shared_report / "index.html").read_text()
    build_report(ReportJob(config=synthetic.settings(kind="paper")), shared_tree, tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert 'class="banner paper"' in text and "Demo numbers" not in text


def test_a_figure_states_its_resolution(shared_report):
    assert "own grid of 1 x 4 x 4 (T x H x W)" in (shared_report / "report.md").read_text()


def test_times_are_only_in_the_cards_and_the_pages(shared_report, shared_tree, job, tmp_path):
    """The same results from another time and machine: tables, figures and the files that DVC compares have the same bytes."""
    shutil.copytree(shared_tree, tmp_path / "tree")
    for path in (tmp_path / "tree" / "cards").rglob("run.json"):
        other = {
            "wall_seconds": 9.5,
            "started": "2031-01-01T00:00:00+00:00",
            "hardware": {"cpu": "Another CPU"},
            "git_commit": "f" * 40,
        }
        path.write_text(json.dumps(json.loads(path.read_text()) | other))
    build_report(job, tmp_path / "tree", tmp_path / "out")
    files = {p.relative_to(shared_report) for p in shared_report.rglob("*") if p.is_file()}
    changed = {f.parts[0] for f in files if (shared_report / f).read_bytes() != (tmp_path / "out" / f).read_bytes()}
    assert changed == {"cards", "index.html", "report.md"} and (shared_report / "cards" / "compute.csv").exists()
    measured = json.loads((shared_report / "metrics.json").read_text())["toy"]["r18"]["mscl"]
    assert 0.5 < measured["top1"] < 1 and set(measured) == {
        "top1",
        "top5",
        "probe_top1",
        "retrieval_1",
        "retrieval_5",
        "retrieval_10",
    }
    assert (shared_report / "curves" / "pretrain" / "r18-mscl-seed1.csv").read_text().startswith("epoch,lr,loss")


def test_every_table_in_every_format(shared_report):
    names = {
        "claims",
        "table1",
        "table1_published",
        "table2",
        "table2_published",
        "table3",
        "ablation",
        "orientation",
        "runs",
        "data",
        "unusable",
        "flow_error",
    }
    assert {p.name for p in (shared_report / "tables").iterdir()} == {f"{n}.{s}" for n in names for s in ("csv", "md", "tex")} | {
        "tables.json"
    }
    text = (shared_report / "report.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (shared_report / link).exists(), link


def test_the_same_results_give_the_same_bytes_and_old_files_are_removed(shared_report, shared_tree, job, tmp_path):
    shutil.copytree(shared_report, tmp_path / "again")
    for old in ("cards/old.json", "tables/old.csv", "figures/old.png"):
        (tmp_path / "again" / old).write_text("old")
    build_report(job, shared_tree, tmp_path / "again")
    files = {p.relative_to(shared_report) for p in shared_report.rglob("*") if p.is_file()}
    assert files == {p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file()}
    assert all((shared_report / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)


def test_a_report_without_results_lists_what_is_missing(job, tmp_path):
    build_report(job, tmp_path / "nothing", tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    assert (
        "The finetuning of r18, mscl, seed 0 is missing: no results/finetune/toy/r18/mscl/seed0/metrics.json; run its stage."
        in text
    )
    assert "No GradCAM figure was made" in text and "MoDist" in text


def test_print_tables(shared_report, capsys, tmp_path):
    print_tables(shared_report)
    text = capsys.readouterr().out
    assert (
        "Table 1" in text
        and "MoDist" in text
        and "measured" in text
        and "index.html" in text.replace("\n", "")
        and "not paper numbers" in text
    )
    with pytest.raises(ValueError, match="run the report stage first"):
        print_tables(tmp_path)


def test_a_measure_taken_every_second_epoch_is_drawn_as_a_line():
    """Empty fields of a history are read as text, as in `results.py`."""
    gaps = pd.DataFrame({"epoch": [1, 2, 3, 4], "knn_top1": ["", "0.1", "", "0.3"]})
    points = pd.DataFrame({"epoch": [2, 4], "knn_top1": [0.1, 0.3]})
    drawn, wanted, empty = (
        curves({("r18", "moco", 0): table}, ["r18"], {"moco": "moco"}, "knn_top1", "top-1")
        for table in (gaps, points, points.assign(knn_top1=float("nan")))
    )
    assert drawn == wanted != empty


def test_the_page_begins_with_the_claims_and_the_two_classes(shared_report, page):
    text = (shared_report / "index.html").read_text()
    order = [
        text.index(f'id="{name}"') for name in ("claims", "strip", "run", "table1", "table1_published", "ablation", "orientation")
    ]
    assert order == sorted(order)
    assert "they are &lt;alike&gt;" in text and (shared_report / "figures" / "strip.png").exists()
    assert "the optical flow from each shown frame to the next" in text and 'class="verdict' in text
    claims = pd.read_csv(shared_report / "tables" / "claims.csv")
    assert set(claims["claim"]) == {"MSCL > baseline", "MSCL > scratch"} and set(claims["verdict"]) == {"not enough seeds"}
