"""The page in a real Chromium: dropping, choosing, pasting, typing; what is seen; and that it speaks to nobody else."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.page.world import GOOD, PageWorld
from tests.cli.trees import png

api = pytest.importorskip("playwright.sync_api", reason="needs playwright (requirements-dev.txt)")


class Window:
    """One of the browser's, and what its tab logged and asked for."""

    def __init__(self, browser: Any, **kind: Any) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **kind)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(60_000)
        # With a listener from the start: without one the first dialog may open before the driver has asked to have it.
        self.tab.on("filechooser", lambda _: None)
        self.tab.on("console", lambda said: self.errors.append(f"{said.type}: {said.text}"))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", lambda asked: self.requests.append(asked.url))

    def open(self, url: str) -> Any:
        self.tab.goto(url)
        api.expect(self.tab.locator("#where")).to_have_text("· Dev, rehearsed on this machine")
        return self.tab

    def check(self, url: str) -> None:
        """Nothing was logged, and nobody but the page was asked."""
        origin = url[: url.index("/", len("http://"))]
        assert self.errors == []
        assert [asked for asked in self.requests if not asked.startswith((url, f"blob:{origin}/"))] == []


@pytest.fixture(scope="module")
def window(browser: Any) -> Window:
    return Window(browser)


@pytest.fixture
def tab(window: Window, page: PageWorld) -> Iterator[Any]:
    yield window.open(page.url)
    window.check(page.url)
    window.errors.clear()
    window.requests.clear()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "rex.png"
    path.write_bytes(png())
    return path


def drop(tab: Any, *files: Path) -> None:
    """As from a file manager: the browser itself is told of the drag."""
    session = tab.context.new_cdp_session(tab)
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})


def see(tab: Any, text: str, where: str = "#verdict") -> None:
    api.expect(tab.locator(where)).to_contain_text(text)


def noise(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_dropped_photo_is_answered_with_its_breeds_and_bars(tab: Any, page: PageWorld, photo: Path) -> None:
    drop(tab, photo)
    see(tab, "Beagle 90.0 %")
    assert tab.locator("#classes li").all_inner_texts() == ["Beagle\n90.0 %", "Pug\n7.0 %", "Boxer\n3.0 %"]
    bars = [bar.evaluate("i => i.style.width") for bar in tab.locator("#classes i").all()]
    assert bars == ["90%", "7%", "3%"]
    assert tab.locator("#photo").evaluate("i => i.naturalWidth") == 8
    assert page.pictures == [png()]


def test_the_hops_are_told_in_order_and_add_up(tab: Any, page: PageWorld, photo: Path) -> None:
    page.delay = 0.05
    page.answer = {**GOOD, "timings": {**GOOD["timings"], "fetch_ms": 12.0}}
    drop(tab, photo)
    see(tab, "Beagle")
    rows = [row.split("\n") for row in tab.locator("#hops li").all_inner_texts()]
    names = ["Browser ↔ page", "Page ↔ function", "Fetching the photo", "Function ↔ endpoint", "Waiting for its turn"]
    assert [row[0] for row in rows] == [*names, "Decoding the photo", "The model itself", "Altogether"]
    took = [float(row[-1].removesuffix(" ms")) for row in rows]
    assert took[2:7] == [12.0, 0.5, 0.5, 3.0, 5.0]
    assert sum(took[:-1]) == pytest.approx(took[-1], abs=2)
    ends = tab.locator("#hops .track i").last.evaluate("i => parseFloat(i.style.left) + parseFloat(i.style.width)")
    assert ends == pytest.approx(100)


def test_times_that_do_not_fit_together_leave_no_bar_outside(tab: Any, page: PageWorld, photo: Path) -> None:
    page.answer = {**GOOD, "timings": {"endpoint_ms": 5000.0, "model_ms": 9000.0}}
    drop(tab, photo)
    see(tab, "Beagle")
    ends = "i => parseFloat(i.style.left) + parseFloat(i.style.width)"
    assert all(0 <= bar.evaluate(ends) <= 100.01 for bar in tab.locator("#hops .track i").all())


@pytest.mark.parametrize("more", [{}, {"verdict": "not_sure", "known": None}], ids=["older function", "function"])
def test_below_the_threshold_it_is_not_sure(tab: Any, page: PageWorld, photo: Path, more: dict[str, Any]) -> None:
    page.answer = {**GOOD, "label": None, "threshold": 0.9004, **more}
    drop(tab, photo)
    see(tab, "Not sure")
    see(tab, "At best Beagle with 90.00 %; the model asks for 90.04 %.")


def test_what_the_model_does_not_know_is_none_of_these(tab: Any, page: PageWorld, photo: Path) -> None:
    known = {"score": 0.41, "threshold": 0.59, "is_known": False}
    page.answer = {**GOOD, "label": None, "verdict": "none_of_these", "known": known}
    drop(tab, photo)
    see(tab, "None of these")
    see(tab, "Its likeness to what the model knows is 41.0 %, and what it knows has 59.0 % at least.")


def test_an_answer_of_an_older_function_is_shown_too(tab: Any, page: PageWorld, photo: Path) -> None:
    page.answer = {name: GOOD[name] for name in ("probabilities", "predictions", "model")}
    drop(tab, photo)
    see(tab, "Beagle 90.0 %")
    assert tab.locator("#hops .what").all_inner_texts()[1:] == ["Page ↔ function and all behind it", "Altogether"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            {"error": {"code": "no_model", "message": "No model is released yet."}},
            "No model is released yet (no_model).",
        ),
        ({}, "The function's answer names no classes."),
        (None, "The function's answer names no classes."),
    ],
)
def test_what_is_no_answer_is_a_sentence(tab: Any, page: PageWorld, photo: Path, answer: Any, says: str) -> None:
    page.answer = answer
    drop(tab, photo)
    see(tab, says)
    tab.get_by_role("tab", name="Answer").click()
    see(tab, "no_model" if answer else "{}" if answer == {} else "null", "#code")


def test_a_class_named_like_markup_is_text(tab: Any, page: PageWorld, photo: Path) -> None:
    label = "<img src=x onerror=alert(1)>"
    page.answer = {**GOOD, "predictions": [{"label": label, "probability": 1}], "label": label}
    drop(tab, photo)
    see(tab, label)


@pytest.mark.parametrize("address", ["https://example.org/x.jpg", "s3://bucket/photos/x.jpg"])
def test_an_address_is_asked_about_without_the_browser_going_there(tab: Any, page: PageWorld, address: str) -> None:
    tab.get_by_label("Or its address").fill(f" {address} ")
    tab.keyboard.press("Enter")
    see(tab, "Beagle")
    assert page.asked == [{"s3_uri" if address.startswith("s3") else "url": address}]


def test_all_of_it_works_by_keyboard(browser: Any, page: PageWorld, photo: Path) -> None:
    window = Window(browser)  # where nothing has had the focus yet
    tab = window.open(page.url)
    tab.keyboard.press("Tab")
    with tab.expect_file_chooser() as chooser:
        tab.keyboard.press("Enter")
    chooser.value.set_files(photo)
    see(tab, "curl", "#code")  # the last that appears
    for _ in range(3):  # the address, its button, the tabs
        tab.keyboard.press("Tab")
    tab.keyboard.press("ArrowRight")
    see(tab, "aws lambda invoke", "#code")
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    see(tab, '"request_id": "r-1"', "#code")
    tab.keyboard.press("Tab")  # what is to be copied, to scroll it
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    see(tab, "Copied", "#copy")
    assert tab.evaluate("navigator.clipboard.readText()") == tab.locator("#code").text_content()
    window.check(page.url)


def test_a_photo_and_an_address_can_be_pasted(tab: Any, page: PageWorld) -> None:
    tab.evaluate("""async () => {
        const canvas = Object.assign(document.createElement("canvas"), {width: 9, height: 7});
        canvas.getContext("2d");
        const blob = await new Promise((done) => canvas.toBlob(done));
        await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
    }""")
    tab.keyboard.press("Control+V")
    see(tab, "Beagle")
    assert Image.open(io.BytesIO(page.pictures[0])).size == (9, 7)
    tab.evaluate("navigator.clipboard.writeText('https://example.org/y.jpg')")
    tab.keyboard.press("Control+V")
    api.expect(tab.get_by_label("Or its address")).to_have_value("https://example.org/y.jpg")
    see(tab, "Beagle")
    assert page.asked[1] == {"url": "https://example.org/y.jpg"}


def test_a_photo_of_60_megapixels_is_made_smaller_here_upright_and_the_page_says_so(
    tab: Any, page: PageWorld, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (10_000, 6_000), "teal").save(tmp_path / "huge.jpg", exif=exif)
    drop(tab, tmp_path / "huge.jpg")
    see(tab, "Beagle")
    sent = Image.open(io.BytesIO(page.pictures[0]))
    assert (sent.format, sent.size, sent.getexif().get(0x0112, 1)) == ("JPEG", (1229, 2048), 1)
    see(tab, "Made smaller in this browser, from 60.0 megapixels and", "#note")
    see(tab, "huge-smaller.jpg", "#code")
    with tab.expect_download() as kept:
        tab.get_by_role("link", name="Keep the smaller one").click()
    assert kept.value.suggested_filename == "huge-smaller.jpg"
    assert Path(kept.value.path()).read_bytes() == page.pictures[0]


def test_a_photo_of_20_megabytes_is_made_small_enough_for_a_request(tab: Any, page: PageWorld, tmp_path: Path) -> None:
    noise(2600, 2600).save(tmp_path / "noise.png", compress_level=0)
    assert (tmp_path / "noise.png").stat().st_size > 20_000_000
    drop(tab, tmp_path / "noise.png")
    see(tab, "Beagle")
    assert Image.open(io.BytesIO(page.pictures[0])).format == "JPEG"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (bytes(5_000_000), "x.jpg has 5.0 MB; a request holds 4.7 MB, and this browser cannot read it"),
        (b"", "is empty"),
    ],
)
def test_what_cannot_be_sent_is_a_sentence_and_asks_nothing(
    tab: Any, page: PageWorld, tmp_path: Path, body: bytes, says: str
) -> None:
    (tmp_path / "x.jpg").write_bytes(body)
    drop(tab, tmp_path / "x.jpg")
    see(tab, says)
    assert page.asked == []


def test_a_folder_is_no_photo(tab: Any, page: PageWorld, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    drop(tab, tmp_path / "photos")
    see(tab, "photos is empty, or nothing that a browser can read.")
    assert page.asked == []


def test_of_several_photos_the_first_is_asked_about_and_the_page_says_so(
    tab: Any, page: PageWorld, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "second.png").write_bytes(png("blue"))
    drop(tab, photo, tmp_path / "second.png")
    see(tab, "Of 2 photos this is the first.", "#note")
    see(tab, "Beagle")
    assert page.pictures == [png()]


def test_a_later_question_is_not_overtaken_by_an_earlier_one(tab: Any, page: PageWorld, photo: Path) -> None:
    page.delay = 0.5
    page.answer = {**GOOD, "predictions": [{"label": "Slow", "probability": 1}]}
    drop(tab, photo)
    tab.wait_for_timeout(200)
    page.delay, page.answer = 0, GOOD
    drop(tab, photo)
    see(tab, "Beagle")
    tab.wait_for_timeout(600)
    see(tab, "Beagle")
    assert tab.locator("#answer").get_attribute("aria-busy") == "false"


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Any, page: PageWorld, photo: Path) -> None:
    phone = Window(browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    tab = phone.open(page.url)
    with tab.expect_file_chooser() as chooser:
        tab.locator("#drop").tap()
    chooser.value.set_files(photo)
    see(tab, "Beagle")
    for name in ("AWS CLI", "boto3", "Request", "Answer", "curl"):
        tab.get_by_role("tab", name=name).tap()
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert all(one.bounding_box()["height"] >= 40 for one in tab.locator("[role=tab], form button").all())
    phone.check(page.url)


def test_the_page_is_dark_where_the_system_is(tab: Any) -> None:
    paper = []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        paper.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert paper == ["rgb(251, 250, 247)", "rgb(20, 24, 22)"]


def test_a_server_that_is_gone_is_said_in_a_sentence(tab: Any, photo: Path) -> None:
    tab.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('Failed to fetch')) }")
    drop(tab, photo)
    see(tab, "The page's server does not answer: is `kennel` still running?")
