import base64
import dataclasses
import html
import math
import os
import re
import shutil
import subprocess

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmark.examples_of_cells import study
from tfrec_feedback.benchmark.cells import Timing
from tfrec_feedback.benchmark.comparison import compare_cells
from tfrec_feedback.benchmark.report import learning_means, reliability, write_report

NOISES = {"fm": 3.0, "din": 1.0, "dfn": 0.5, "dfn, <b>bold</b>": 0.505}
FIGURES = ["Test CTR AUC with intervals", "CTR AUC and latency", "Learning curves", "Calibration"]


@pytest.fixture(scope="module")
def made():
    return study(NOISES, dislike=("dfn",))


@pytest.fixture(scope="module")
def comparison(made):
    return compare_cells(made, {label: Timing(9000.0, 1.0 + i) for i, label in enumerate(NOISES)})


@pytest.fixture(scope="module")
def page(made, comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(comparison, made, path, title="A & B", notes=["Tuned with <8> trials."])
    return path


def rows_of(text, table):
    """Texts of a table's rows by their heading."""
    body = text.split(f'id="{table}"')[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = {}
    for row in re.findall(r"<tr.*?</tr>", body, re.S):
        cells = re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
        plain = [html.unescape(re.sub(r"<[^>]*>", " ", cell)).split() for cell in cells]
        rows[" ".join(plain[0])] = [" ".join(cell) for cell in plain[1:]]
    return rows


def names_of(text):
    return re.findall(r"<h2>([^<]*)</h2>\s*<figure>", text)


def test_the_table_holds_every_model_the_best_first(page, comparison):
    text = page.read_text("utf-8")
    rows = rows_of(text, "results")
    assert list(rows) == [row.label for row in comparison.ranked()]
    for row in comparison.rows:
        assert f"{row.ctr_auc.mean:.4f} ± {row.ctr_auc.deviation:.4f}" in rows[row.label][0]
        low, high = row.ctr_auc_interval[1:]
        assert f"{low:.4f} to {high:.4f}" in rows[row.label][0]
        assert f"{row.gauc.mean:.4f}" in rows[row.label][3]
    assert text.count('<tr class="best">') == 1
    best = text.split('<tr class="best">')[1].split("</tr>")[0]
    assert html.escape(comparison.best) in best


def test_rows_that_do_not_differ_from_the_best_are_marked_and_the_mark_is_explained(
    page, comparison
):
    text = page.read_text("utf-8")
    rows = rows_of(text, "results")
    second = comparison.ranked()[1]
    assert comparison.is_tied(second.auc_difference)
    assert rows[second.label][0].startswith("≈")
    assert f"p = {second.auc_difference.corrected:.3f}" in rows[second.label][1]
    assert not rows["fm"][0].startswith("≈") and "p < 0.001" in rows["fm"][1]
    assert "not significantly different from the best model (p ≥ 0.05)" in " ".join(text.split())


def test_the_page_says_what_was_compared_and_how(page):
    text = " ".join(re.sub(r"<[^>]*>", "", page.read_text("utf-8")).split())
    assert "4 models, each trained with 2 seeds, scored on the same 600 test exposures" in text
    for word in ("DeLong", "Holm", "2,000 draws", "conservative", "larger than that of fm"):
        assert word in text


def test_text_from_outside_is_escaped(page):
    text = page.read_text("utf-8")
    assert "<h1>A &amp; B</h1>" in text
    assert "Tuned with &lt;8&gt; trials." in text
    assert "<b>" not in text


def test_the_page_needs_nothing_but_itself(page):
    text = page.read_text("utf-8")
    sources = re.findall(r'(?:src|href|action|data)\s*=\s*"([^"]*)"', text)
    assert len(sources) == 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert "default-src 'none'" in text and "<script" not in text and "url(" not in text
    for source in sources:
        picture = base64.b64decode(source.split(",")[1]).decode("utf-8")
        assert not re.search(r'(?:src|href)="(?!#)', picture)


def test_every_figure_has_an_alternative_text_and_a_caption(page):
    text = page.read_text("utf-8")
    assert names_of(text) == FIGURES
    assert all(len(alt) > 40 for alt in re.findall(r'alt="([^"]*)"', text))
    captions = re.findall(r"<figcaption>([^<]*)</figcaption>", text)
    assert len(captions) == 4 and all(len(caption) > 60 for caption in captions)


def test_equal_cells_give_an_equal_file(made, comparison, page):
    other = page.with_name("again.html")
    write_report(comparison, made, other, title="A & B", notes=["Tuned with <8> trials."])
    assert other.read_bytes() == page.read_bytes()


def test_what_was_not_measured_is_left_out(made, tmp_path):
    plain = [
        dataclasses.replace(cell, history=[{"loss": 0.5}], settings={"model.dropout": 0.12345678})
        for cell in made
        if cell.label in ("din", "dfn, <b>bold</b>")
    ]
    write_report(compare_cells(plain, {}), plain, tmp_path / "r.html", title="Plain")
    text = (tmp_path / "r.html").read_text("utf-8")
    assert names_of(text) == ["Test CTR AUC with intervals", "Calibration"]
    for word in ("RelaImpr", "dislike AUC", "latency", "Notes", "nan"):
        assert word not in re.sub(r'src="[^"]*"', "", text)
    assert rows_of(text, "settings")["din"] == ["model.dropout = 0.1235"]


def test_untuned_models_say_so(page):
    assert rows_of(page.read_text("utf-8"), "settings")["fm"] == ["as given for all models"]


def test_learning_curves_are_means_over_the_seeds_that_trained_that_long(made):
    long = [{"ctr_auc": 0.6}, {"ctr_auc": 0.8}, {"ctr_auc": 0.9}]
    short = [{"ctr_auc": 0.5}, {"ctr_auc": math.nan}]
    cells = [
        dataclasses.replace(cell, history=long if cell.seed else short)
        for cell in made
        if cell.label == "fm"
    ]
    curve = learning_means(["fm"], cells)["fm"]
    assert curve == pytest.approx([0.55, 0.8, 0.9])


def test_one_epoch_is_no_learning_curve(made, comparison, tmp_path):
    cells = [dataclasses.replace(cell, history=cell.history[:1]) for cell in made]
    write_report(comparison, cells, tmp_path / "report.html", title="one epoch")
    assert "Learning curves" not in names_of((tmp_path / "report.html").read_text("utf-8"))


@given(st.integers(1, 60), st.integers(0, 1000))
def test_bins_of_the_reliability_curve_share_all_rows_evenly(size, seed):
    rng = np.random.default_rng(seed)
    rates = rng.permutation(size) / size
    clicks = (rng.random(size) < rates).astype(np.float32)
    predicted, observed = reliability(clicks, rates, num_bins=5)
    assert len(predicted) == len(observed) == min(size, 5)
    assert predicted == sorted(predicted)
    assert np.mean(predicted) == pytest.approx(rates.mean(), abs=1 / size)
    order = np.argsort(rates)
    if size % 5 == 0:
        np.testing.assert_allclose(observed, clicks[order].reshape(5, -1).mean(axis=1), atol=1e-6)


def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and os.environ.get("CI"):
        pytest.fail("No chromium: install it (Debian: apt-get install chromium).")
    if found is None:
        pytest.skip("no chromium on this machine")
    return found


def visit(page, folder, *options):
    """Opens the page in a headless browser and returns what it prints."""
    quiet = ["quic", "background-networking", "component-update", "sync", "gpu"]
    command = [browser(), "--headless", "--no-sandbox", "--no-first-run"]
    command += [f"--disable-{name}" for name in quiet]
    command += [f"--user-data-dir={folder}", "--window-size=1200,4000", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_browser_shows_tables_and_figures(page, tmp_path, comparison):
    seen = visit(page, tmp_path / "profile", "--dump-dom")
    assert list(rows_of(seen, "results")) == [row.label for row in comparison.ranked()]
    assert len(re.findall(r"<img ", seen)) == 4


@pytest.mark.parametrize(("scheme", "background"), [(1, (255, 255, 255)), (0, (22, 24, 27))])
def test_the_page_is_drawn_light_or_dark_with_its_pictures(page, tmp_path, scheme, background):
    picture = tmp_path / "page.png"
    option = f"--blink-settings=preferredColorScheme={scheme}"
    visit(page, tmp_path / "profile", option, f"--screenshot={picture}")
    pixels = np.round(matplotlib.image.imread(picture)[..., :3] * 255)
    assert pixels.shape[:2] == (4000, 1200)
    np.testing.assert_array_equal(pixels[5, 5], background)
    # The best model's dots and curves: only the pictures hold this colour.
    best = np.array([int(f"{'D55E00'[i : i + 2]}", 16) for i in (0, 2, 4)])
    assert (np.abs(pixels - best).max(axis=-1) < 3).sum() > 100
