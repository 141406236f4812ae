import html
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from urllib.parse import urlencode

import grpc
import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.client import FeedbackClient, ServingError
from serving.page import (
    MAX_BODY_BYTES,
    MOST_CANDIDATES,
    ScoringPage,
    as_columns,
    golden_requests,
    pretty,
)
from serving.page_html import MOST_ROWS
from tests.serving.fake_server import FakeServer
from tests.serving.page_host import hosted
from tests.serving.tiny_model import CTR, REQUEST, SCHEMA, numpy_scores
from tfrec_feedback.requests import RequestError

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture
def page():
    return ScoringPage(numpy_scores, SCHEMA, [REQUEST, REQUEST | {"histories": {}}])


def score(page, request):
    text = request if isinstance(request, str) else pretty(request)
    status, _, content = page.handle("POST", "/score", urlencode({"request": text}).encode())
    return status, content.decode()


def tables(text):
    """Cells of every table, row by row."""
    found = []
    for table in re.findall(r"<table>.*?</table>", text, re.S):
        rows = re.findall(r"<tr>.*?</tr>", table, re.S)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in rows]
        found.append([[html.unescape(re.sub("<[^>]*>", "", c)) for c in row] for row in cells])
    return found


def error_of(text):
    return html.unescape("".join(re.findall(r'<p class="error"[^>]*>(.*?)</p>', text, re.S)))


def area_of(text):
    return html.unescape(re.search(r"<textarea[^>]*>\n(.*?)</textarea>", text, re.S).group(1))


def test_candidates_are_ranked_with_both_scores_beside_the_histories_they_met(page):
    status, text = score(page, REQUEST)
    assert status == 200
    candidates, clicks, context = tables(text)
    assert candidates == [
        ["rank", "item_id", "tag", "price", "ctr", "dislike"],
        ["1", "12", "", "0.0", "56.0000", "0.0000"],
        ["2", "10", "graz, a", "0.5", "55.0000", "1.5000"],
        ["3", "3", "graz, graz, b", "0.25", "51.5000", "2.2500"],
    ]
    assert clicks == [["item_id", "tag"], ["2", ""], ["1", "a"]]
    assert context == [["feature", "value"], ["hour", "20"], ["city", "graz"]]
    assert "click: 2 events" in text and "3 candidates, best first" in text
    assert area_of(text) == pretty(REQUEST)


def test_rows_and_missing_histories_are_shown_too(page):
    rows = [{"item_id": 4, "tag": [], "price": 1.0}]
    scorer = lambda request: {"ctr": np.array([3.0]), "dislike": np.array([1.0])}  # noqa: E731
    request = {"context": {"hour": 1, "city": "x"}, "candidates": rows}
    status, text = score(ScoringPage(scorer, SCHEMA), request)
    assert status == 200
    assert tables(text)[0][1] == ["1", "4", "", "1.0", "3.0000", "1.0000"]
    assert "click: 0 events" in text and "1 candidate, best first" in text


def test_a_golden_request_is_picked_by_its_number(page):
    _, _, content = page.handle("GET", "/", b"")
    text = content.decode()
    assert area_of(text) == ""
    assert re.findall(r"<option[^>]*>([^<]*)", text)[1:] == [
        "0, hour 20: 3 candidates",
        "1, hour 20: 3 candidates",
    ]
    status, content_type, content = page.handle("GET", "/?golden=1", b"")
    assert (status, content_type) == (200, "text/html; charset=utf-8")
    assert area_of(content.decode()) == pretty(REQUEST | {"histories": {}})
    for wrong in ("2", "-1", "x", "9" * 5000, "0000000009", ATTACK):
        status, _, content = page.handle("GET", "/?" + urlencode({"golden": wrong}), b"")
        assert status == 404
        assert "There is no golden request" in error_of(content.decode())
        assert "<script>alert" not in content.decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "request, line 1, column 1: not valid JSON"),
        ("[1]", "A request is a JSON object, not list."),
        ("[" * 200_000, "not readable as JSON"),
        ("1" * 5000, "not readable as JSON"),
        ('{"context": {"hour": 1}, "candidates": []}', "missing ['city']"),
        ('{"context": {"hour": NaN, "city": ""}, "candidates": []}', "context.hour"),
        ('{"context": {"hour": 1, "city": ""}, "candidates": []}', "no candidates"),
        ('{"context": {"hour": 1, "city": ""}, "candidates": [7]}', "candidates[0] must be"),
    ],
)
def test_a_mistake_is_explained_above_the_text_that_has_it(page, text, expected):
    status, answer = score(page, text)
    assert status == 400
    assert expected in error_of(answer)
    assert area_of(answer) == text
    assert tables(answer) == []


def test_a_failing_server_is_told_of_and_a_failing_scorer_keeps_its_secrets(page, caplog):
    def refuses(_):
        raise ServingError(grpc.StatusCode.NOT_FOUND, f"No model {ATTACK}")

    status, text = score(ScoringPage(refuses, SCHEMA), REQUEST)
    assert status == 502 and "NOT_FOUND: No model <script>" in error_of(text)
    assert "<script>alert" not in text

    def breaks(_):
        raise RuntimeError("password 1234")

    status, text = score(ScoringPage(breaks, SCHEMA), REQUEST)
    assert status == 500 and "1234" not in text
    assert "password 1234" in caplog.text


def test_whatever_a_request_says_is_text_and_never_markup():
    hostile = {
        "context": {"hour": 1, "city": ATTACK},
        "histories": {"click": {"item_id": [1], "tag": [[ATTACK]]}},
        "candidates": {"item_id": [1], "tag": [[ATTACK, "</textarea>"]], "price": [1.0]},
    }
    page = ScoringPage(numpy_scores, SCHEMA, [hostile], title=ATTACK)
    status, text = score(page, hostile)
    assert status == 200
    assert "<script>alert" not in text and "<img" not in text
    assert text.count("<script>") == text.count("</script>") == 1
    assert text.count("</textarea>") == 1
    assert tables(text)[1][1] == ["1", ATTACK]
    golden = page.handle("GET", "/?golden=0", b"")[2].decode()
    assert "<script>alert" not in golden and area_of(golden) == pretty(hostile)


@settings(max_examples=30)
@given(st.text(max_size=60))
def test_any_text_comes_back_as_it_was_and_leaves_the_page_whole(text):
    status, answer = score(ScoringPage(numpy_scores, SCHEMA), text)
    assert status == 400
    assert area_of(answer) == text.replace("\r\n", "\n")
    assert answer.count("<form") == 1 and answer.endswith("</html>\n")


@settings(max_examples=30)
@given(st.sampled_from(["GET", "POST", "PUT"]), st.text(max_size=30), st.binary(max_size=60))
def test_no_request_of_a_browser_raises(method, path, body):
    page = ScoringPage(numpy_scores, SCHEMA, [REQUEST])
    for address in (path, "/score", f"/?{path}"):
        status, content_type, content = page.handle(method, address, body)
        assert status in (200, 400, 404, 405)
        assert content_type.startswith("text/html") and content.startswith(b"<!doctype html>")


def test_too_much_is_refused_before_it_is_read(page):
    assert page.handle("POST", "/score", b"x" * (MAX_BODY_BYTES + 1))[0] == 413
    form = "&".join(f"a{n}=1" for n in range(50))
    assert page.handle("POST", "/score", form.encode())[0] == 400
    many = {
        name: [column[0]] * (MOST_CANDIDATES + 1) for name, column in REQUEST["candidates"].items()
    }
    status, text = score(page, REQUEST | {"candidates": many})
    assert status == 400 and f"up to {MOST_CANDIDATES:,} candidates" in error_of(text)


def test_the_best_of_many_candidates_are_drawn_and_the_others_counted(page):
    many = {name: [column[0]] * 300 for name, column in REQUEST["candidates"].items()}
    status, text = score(page, REQUEST | {"candidates": many})
    assert status == 200
    assert len(tables(text)[0]) == 1 + MOST_ROWS
    assert "and 100 more with lower scores" in text


def test_the_page_loads_nothing_and_lets_no_other_script_run(page):
    _, text = score(page, REQUEST)
    assert "default-src 'none'" in text and "unsafe" not in text
    assert not re.search(r"(?:src|href)\s*=|url\(|@import", text)
    assert not re.search(r"<[^>]* (?:style|on\w+)=", text)


def test_a_page_of_a_client_makes_one_and_keeps_it():
    made = []
    with FakeServer() as server:

        def factory():
            made.append(FeedbackClient(server.target, "tiny"))
            return made[-1]

        page = ScoringPage.of_client(factory)
        for _ in range(2):
            status, text = score(page, REQUEST)
            assert status == 200
            assert [row[4] for row in tables(text)[0][1:]] == [
                f"{value:.4f}" for value in sorted(CTR, reverse=True)
            ]
        assert score(page, {"candidates": 3})[0] == 400
        assert len(made) == 1
        made[0].close()


def test_golden_requests_are_read_from_files(tmp_path):
    (tmp_path / "golden.jsonl").write_text('{"candidates": []}\n')
    assert golden_requests(tmp_path / "golden.jsonl", SCHEMA) == [{"candidates": []}]
    with pytest.raises(RequestError, match="No file"):
        golden_requests(tmp_path / "golden.tfrecord", SCHEMA)


def test_columns_are_shown_however_they_were_written():
    assert as_columns([{"a": 1, "b": 2}, {"a": 3}]) == {"a": [1, 3], "b": [2, None]}
    assert as_columns({"a": (1, 2)}) == {"a": [1, 2]}
    assert as_columns(None) == as_columns([]) == as_columns(7) == {}


def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and os.environ.get("CI"):
        pytest.fail("No chromium: install it (Debian: apt-get install chromium).")
    if found is None:
        pytest.skip("no chromium on this machine")
    return found


def visit(address, folder, *options):
    """Opens an address in a headless browser and returns what it prints."""
    quiet = ["quic", "background-networking", "component-update", "sync", "gpu"]
    command = [browser(), "--headless", "--no-sandbox", "--no-first-run"]
    command += [f"--disable-{name}" for name in quiet]
    command += [f"--user-data-dir={folder}", "--window-size=1200,1400", *options, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_browser_shows_the_form_and_runs_the_pages_own_script(page, tmp_path):
    with hosted(page) as address:
        seen = visit(f"{address}/?golden=0", tmp_path / "profile", "--dump-dom")
    (area,) = re.findall(r"<textarea[^>]*>(.*?)</textarea>", seen, re.S)
    assert html.unescape(area) == pretty(REQUEST)
    assert re.search(r'<button[^>]*id="load"[^>]*hidden', seen)


def test_a_browser_runs_no_script_of_a_request(tmp_path):
    attack = "<script>document.title = 'owned'</script>"
    hostile = REQUEST | {"context": {"hour": 1, "city": attack}}
    status, text = score(ScoringPage(numpy_scores, SCHEMA, title="safe"), hostile)
    # Even where escaping were forgotten, the page's policy stops the script.
    text = text.replace(html.escape(attack), attack)
    assert status == 200 and attack in text
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    seen = visit(path.as_uri(), tmp_path / "profile", "--dump-dom")
    assert "<title>safe</title>" in seen


@pytest.mark.parametrize(("scheme", "background"), [(1, (255, 255, 255)), (0, (22, 24, 27))])
def test_the_ranking_is_drawn_light_or_dark(page, tmp_path, scheme, background):
    path, picture = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(score(page, REQUEST)[1], encoding="utf-8")
    option = f"--blink-settings=preferredColorScheme={scheme}"
    visit(path.as_uri(), tmp_path / "profile", option, f"--screenshot={picture}")
    pixels = np.round(matplotlib.image.imread(picture)[..., :3] * 255)
    np.testing.assert_array_equal(pixels[5, 5], background)
    bars = {1: (11, 123, 196), 0: (74, 163, 224)}[scheme]
    # Three bars of 8 by up to 90 pixels: only click scores hold this colour.
    assert (np.abs(pixels - np.array(bars)).max(axis=-1) < 3).sum() > 1000


def test_a_small_http_server_mounts_the_page(page):
    with hosted(page) as address:
        body = urlencode({"request": pretty(REQUEST)}).encode()
        with urllib.request.urlopen(f"{address}/score", body, timeout=30) as answer:
            assert answer.status == 200
            assert "56.0000" in answer.read().decode()
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{address}/etc/passwd", timeout=30)
        assert error.value.code == 404
