"""The page, in a real browser: what a person sees, hears of and can do, and what it never does."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

import edge_ser
from edge_ser.assistants.address import Address
from edge_ser.assistants.notice import NOTICE
from edge_ser.assistants.page import HEADERS, page_file
from edge_ser.assistants.websocket_door import Door
from tests.edge_ser.assistants.browsing import PATIENCE_S, Client, ScriptedService, chromium
from tests.edge_ser.assistants.running import serving

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

FILES = sorted(file.name for file in files("edge_ser.assistants.page").iterdir() if not file.name.startswith("__"))
LABELS = ("angry", "happy", "neutral", "sad")
LEDGER = {
    "captured_samples": 48_000,
    "classified_samples": 24_000,
    "silence_samples": 16_000,
    "rejected_samples": 8_000,
    "dropped_samples": 0,
    "device_gap_s": 0.0,
    "overflow_estimated_s": 0.0,
}
SUMMARY = {"type": "summary", "model": "scripted", "utterances": 1, "duration_s": 3.0, "ledger": LEDGER}
STARTED = {"type": "speech_started", "utterance": 1, "start_s": 0.2}


def ready(session: str = "one", received_bytes: int = 0) -> dict[str, Any]:
    return {
        "type": "ready",
        "session": session,
        "model": "scripted",
        "labels": LABELS,
        "received_bytes": received_bytes,
    }


def level(at_s: float, speech: bool = True) -> dict[str, Any]:
    return {"type": "level", "at_s": at_s, "rms_dbfs": -20.0, "speech": speech, "ledger": LEDGER}


def emotion(utterance: int, *shares: float, candidates: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """Return an answer; one with candidates is uncertain."""
    likeliest = LABELS[int(np.argmax(shares))]
    return {
        "type": "emotion",
        "utterance": utterance,
        "start_s": 3.0 * utterance - 2.8,
        "end_s": 3.0 * utterance - 0.5,
        "emotion": likeliest,
        "confidence": max(shares),
        "probabilities": dict(zip(LABELS, shares, strict=True)),
        "uncertain": bool(candidates),
        "candidates": candidates or (likeliest,),
        "attributes": None,
        "model": "scripted",
        "latency_ms": 5.0,
        "text_used": False,
        "voice_utterances": utterance - 1,
        "final": True,
        "revision": 0,
        **more,
    }


ANSWERS = (
    STARTED,
    emotion(1, 0.5, 0.4, 0.06, 0.04, candidates=("angry", "happy")),
    emotion(2, 0.02, 0.93, 0.03, 0.02, attributes={"arousal": 0.71, "valence": 0.64}),
    {"type": "rejected", "utterance": 3, "start_s": 6.2, "end_s": 6.4, "reason": "too_short"},
    emotion(4, 0.25, 0.25, 0.26, 0.24, candidates=LABELS),
    emotion(5, 0.1, 0.1, 0.7, 0.1, candidates=("neutral",)),
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Chrome]:
    """A browser into whose microphone the last of the six utterances is said, again and again."""
    folder = tmp_path_factory.mktemp("browser")
    samples, rate_hz = soundfile.read(root / "examples" / "conversation.flac", dtype="int16")
    soundfile.write(folder / "last.wav", samples[-int(3.5 * rate_hz) :], rate_hz)
    with chromium(folder / "profile", folder / "last.wav") as driver:
        yield driver


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedService]:
    with ScriptedService().open() as service:
        yield service


@pytest.fixture
def page(browser: Chrome, scripted: ScriptedService) -> Iterator[Chrome]:
    """The page, fresh; whatever a test does, nothing may fail in it and nothing may come from elsewhere."""
    scripted.clients.clear()
    browser.get(scripted.url)
    yield browser
    scripted.check()
    check_clean(browser, scripted.url)


def check_clean(browser: Chrome, url: str) -> None:
    # The browser itself writes down every connection that could not be had; the page tells the person.
    log = [entry for entry in browser.get_log("browser") if "WebSocket connection" not in entry["message"]]
    assert log == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in loaded if not name.startswith(url)] == []


def element(browser: Chrome, name: str) -> WebElement:
    return browser.find_element("id", name)


def text(browser: Chrome, name: str) -> str:
    return str(element(browser, name).get_property("textContent"))


def wait_for(browser: Chrome, expression: str) -> None:
    """Wait until something is true in the page."""
    wait_until(browser, lambda: browser.execute_script(f"return {expression}"), expression)


def wait_until(browser: Chrome, is_true: Callable[[], bool], what: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, PATIENCE_S, 0.05).until(lambda driver: is_true(), f"never came true: {what}")


def start(browser: Chrome) -> None:
    element(browser, "listen").click()
    wait_for(browser, "document.body.dataset.state === 'listening'")


def stop(browser: Chrome) -> None:
    element(browser, "listen").click()
    wait_for(browser, "document.body.dataset.state === 'idle'")


def answer_all(client: Client) -> None:
    """Say everything that can be said, then hear the client out."""
    client.say(ready())
    client.hear(1)
    client.say(*(level(0.1 * step) for step in range(1, 21)), *ANSWERS)
    client.hear()
    client.say(SUMMARY)


def test_the_files_need_nothing_but_each_other() -> None:
    assert page_file("/") is not None
    for name in FILES:
        if name == "index.html":
            continue
        file = page_file(f"/{name}?1")
        assert file is not None and file.content_type.startswith(("text/", "image/svg+xml"))
    for name in FILES:
        content = files("edge_ser.assistants.page").joinpath(name).read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\"']+", content)) <= {"http://www.w3.org/2000/svg"}
        references = re.findall(r'(?:src=|href=|from |addModule\()"(?:\./)?([^"]+)"', content)
        assert [target for target in references if page_file(f"/{target}") is None] == []
        assert not re.search(
            r"<style|\sstyle=|\son[a-z]+=\"|<script(?! type=\"module\" src=)|innerHTML|eval\(", content
        )


@pytest.mark.parametrize(
    "path", ["/index.html", "/__init__.py", "/../notice.py", "/%2e%2e/notice.py", "//page.css", "/x"]
)
def test_nothing_else_is_there(path: str) -> None:
    assert page_file(path) is None


def test_the_policy_is_strict() -> None:
    policy = dict(part.strip().partition(" ")[::2] for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) <= {"'none'", "'self'", "'script'"}
    assert HEADERS["X-Content-Type-Options"] == "nosniff"


def test_a_person_is_heard(browser: Chrome) -> None:
    recognizer = edge_ser.load(threads=1)
    door = Door(Address(port=0), token="a-token-that-nobody-guesses", shows_page=True)

    def person(url: str) -> None:
        browser.get(f"{url}#token={door.token}")
        start(browser)
        assert browser.current_url == url
        wait_for(browser, "document.querySelector('#history li:not(.rejected)')")
        stop(browser)
        check_clean(browser, url)

    async def run() -> dict[int, Any]:
        async with serving(recognizer, door) as service:
            await asyncio.to_thread(person, service.where.replace("ws:", "http:").replace("/listen", "/"))
        return service.left

    (summary,) = asyncio.run(run()).values()
    rows = browser.find_elements("css selector", "#history li")
    assert len(rows) == summary.utterances >= 1
    assert text(browser, "balance") == f"{summary.duration_s:.1f} s heard, every sample in exactly one account."
    spoken = browser.find_element("css selector", "#history li:not(.rejected) > :last-child").get_property(
        "textContent"
    )
    shares = {label: float(share) for label, share in re.findall(r"(\w+) (\d\.\d\d)", spoken)}
    assert set(shares) == set(recognizer.labels) and sum(shares.values()) == pytest.approx(1.0, abs=0.021)
    assert text(browser, "model") == recognizer.model


def test_everything_that_is_heard_is_shown(page: Chrome, scripted: ScriptedService) -> None:
    scripted.lead = answer_all
    assert NOTICE in element(page, "problem").find_element("xpath", "//aside").text
    start(page)
    wait_for(page, "document.querySelectorAll('#history li').length === 5")
    rows = page.find_elements("css selector", "#history li")
    assert [row.get_attribute("class") for row in rows] == [
        "uncertain",
        "uncertain",
        "rejected",
        "certain",
        "uncertain",
    ]
    assert [" ".join(row.get_property("textContent").split()) for row in rows] == [
        "0:12.2 to 0:14.5: uncertain, perhaps neutral?; neutral 0.70, angry 0.10, happy 0.10, sad 0.10",
        "0:09.2 to 0:11.5: uncertain, unclear?; neutral 0.26, angry 0.25, happy 0.25, sad 0.24",
        "0:06.2 to 0:06.4: too short to judge",
        "0:03.2 to 0:05.5: happy0.93; happy 0.93, neutral 0.03, angry 0.02, sad 0.02",
        "0:00.2 to 0:02.5: uncertain, angry or happy?; angry 0.50, happy 0.40, neutral 0.06, sad 0.04",
    ]
    assert (text(page, "answer"), element(page, "answer").get_attribute("class")) == (
        "perhaps neutral",
        "uncertain tone-2",
    )
    hatched = page.find_elements("css selector", "#shares .uncertain")
    assert [share.get_attribute("data-label") for share in hatched] == ["neutral"]
    assert element(page, "ledger").text.split("\n") == ["judged", "1.5 s", "silence", "1.0 s", "rejected", "0.5 s"]
    assert text(page, "balance") == "3.0 s heard, every sample in exactly one account."
    pixels = "ribbon.getContext('2d').getImageData(0, 0, ribbon.width, ribbon.height).data"
    assert page.execute_script(f"return {pixels}.some(Boolean)")
    stop(page)
    assert text(page, "problem") == ""
    assert scripted.clients[0].hello == {
        "type": "hello",
        "rate_hz": page.execute_script("return new AudioContext().sampleRate"),
        "format": "s16le",
        "partials": True,
        "levels": True,
    }


def test_answers_come_early_and_change(page: Chrome, scripted: ScriptedService) -> None:
    def lead(client: Client) -> None:
        client.say(ready(), STARTED, emotion(1, 0.1, 0.8, 0.05, 0.05, final=False))
        client.hear(1)
        wait.wait(PATIENCE_S)
        client.say(
            emotion(1, 0.9, 0.05, 0.03, 0.02, revision=1, attributes={"arousal": 0.71, "valence": 0.2}),
            emotion(1, 0.02, 0.02, 0.03, 0.93, revision=2, text_used=True),
        )
        client.hear()
        client.say(SUMMARY)

    wait = threading.Event()
    scripted.lead = lead
    start(page)
    wait_for(page, "about.textContent === 'Confidence 0.80 · so far'")
    assert page.find_elements("css selector", "#history li") == []
    wait.set()
    wait_for(page, "answer.textContent === 'sad'")
    assert [said.text for said in page.find_elements("css selector", "#history .said")] == ["sad"]
    stop(page)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 320)])
def test_everybody_can_use_it(page: Chrome, scripted: ScriptedService, scheme: str, width: int) -> None:
    pytest.importorskip("axe_core_python", reason="accessibility is checked by axe: pip install axe-core-python")
    emulate(page, scheme, width)
    scripted.lead = answer_all
    checks = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page.execute_script(checks)
    assert violations(page) == []
    start(page)
    wait_for(page, "document.querySelectorAll('#history li').length === 5")
    wait_for(page, "document.getAnimations().length === 0")
    assert violations(page) == []
    assert page.execute_script("return document.scrollingElement.scrollWidth") <= width
    stop(page)


def emulate(browser: Chrome, scheme: str, width: int, motion: str = "no-preference") -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": name, "value": features[name]} for name in features]}
    )


def violations(browser: Chrome) -> list[tuple[str, list[str]]]:
    found = browser.execute_async_script("const done = arguments[0]; axe.run().then((found) => done(found.violations))")
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]


def test_the_keyboard_is_enough(page: Chrome, scripted: ScriptedService) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def tab() -> str:
        ActionChains(page).send_keys(Keys.TAB).perform()
        focused = page.switch_to.active_element
        assert focused.value_of_css_property("outline-style") == "solid"
        return focused.get_attribute("id")

    scripted.lead = answer_all
    assert tab() == "listen"
    ActionChains(page).send_keys(Keys.ENTER).perform()
    wait_for(page, "document.querySelectorAll('#history li').length === 5")
    assert page.switch_to.active_element.get_attribute("id") == "listen"
    assert [tab(), tab(), tab()] == ["scroll", "partials", "announce"]
    ActionChains(page).send_keys(Keys.SPACE).perform()
    assert not element(page, "announce").is_selected()
    element(page, "listen").send_keys(Keys.SPACE)
    wait_for(page, "listen.textContent === 'Start listening'")


def test_a_screen_reader_is_told_calmly(page: Chrome, scripted: ScriptedService) -> None:
    scripted.lead = answer_all
    page.execute_script(
        "window.told = [];"
        "new MutationObserver(() => told.push(spoken.textContent)).observe(spoken, {childList: true, subtree: true})"
    )
    start(page)
    wait_for(page, "told.at(-1) === 'Utterance 5: uncertain, perhaps neutral.'")
    # Of five answers at once the first may be told and the newest is; the others stand in the history.
    assert page.execute_script("return told.length") <= 3
    names = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        if not node.get("ignored")
    }
    assert {
        ("button", "Stop"),
        ("meter", "Level"),
        ("complementary", "Notice"),
        ("region", "History"),
        ("region", "Where the audio went"),
        ("list", "Probability of each emotion"),
        ("checkbox", "Tell screen readers each answer"),
    } <= names
    stop(page)


def test_who_wants_no_motion_gets_none(page: Chrome) -> None:
    moves = "return getComputedStyle(level.firstElementChild).transitionDuration !== '0s'"
    emulate(page, "light", 1280)
    assert page.execute_script(moves)
    emulate(page, "light", 1280, "reduce")
    assert not page.execute_script(moves)


def test_a_broken_connection_is_resumed_without_a_loss(page: Chrome, scripted: ScriptedService) -> None:
    arrived = 20_001

    def lead(client: Client) -> None:
        if len(scripted.clients) == 1:
            client.say(ready(), STARTED, level(0.1), emotion(1, 0.9, 0.05, 0.03, 0.02))
            client.hear(40_000)
            client.socket.socket.close()
        else:
            client.say(ready(received_bytes=arrived))
            client.hear()
            client.say(SUMMARY)

    scripted.lead = lead
    start(page)
    wait_until(page, lambda: len(scripted.clients) == 2, "the page came back")
    wait_for(page, "document.body.dataset.state === 'listening'")
    stop(page)
    first, second = scripted.clients
    assert (second.hello["resume"], second.hello["events_seen"]) == ("one", 2)
    again = first.audio[arrived:]
    assert len(again) >= 20_000 - 1 and second.audio[: len(again)] == again
    # Nothing that was heard before the break is gone from the page.
    assert len(page.find_elements("css selector", "#history li")) == 1


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (4503, "64 clients are being served; try again later", "64 clients are being served; try again later."),
        (1011, "", "edge-ser does not answer."),
    ],
)
def test_a_refusal_is_said(page: Chrome, scripted: ScriptedService, code: int, reason: str, said: str) -> None:
    scripted.lead = lambda client: client.socket.close(code, reason)
    element(page, "listen").click()
    wait_for(page, "!problem.hidden")
    assert text(page, "problem").startswith(said)
    assert text(page, "listen") == "Start listening"


def test_a_service_that_is_gone_is_said(browser: Chrome) -> None:
    with ScriptedService().open() as service:
        browser.get(service.url)
    element(browser, "listen").click()
    wait_for(browser, "!problem.hidden")
    assert text(browser, "problem").startswith("edge-ser does not answer.")
    browser.get_log("browser")


def test_a_token_can_be_typed(page: Chrome, scripted: ScriptedService) -> None:
    def lead(client: Client) -> None:
        if client.hello.get("token") == "the right one":
            answer_all(client)
        else:
            client.socket.close(4401, "the token is missing or wrong")

    from selenium.webdriver.common.keys import Keys

    scripted.lead = lead
    page.execute_script("sessionStorage.clear()")
    for token in ("a wrong one", " the right one "):
        if not element(page, "access").is_displayed():
            element(page, "listen").click()
        wait_for(page, "document.activeElement.id === 'token'")
        assert text(page, "problem").startswith("edge-ser asks for a token.")
        element(page, "token").clear()
        element(page, "token").send_keys(token + Keys.ENTER)
        wait_for(page, "document.body.dataset.state !== 'starting'")
    wait_for(page, "document.body.dataset.state === 'listening'")
    assert not element(page, "access").is_displayed()
    assert [client.hello.get("token") for client in scripted.clients] == [None, "a wrong one", "the right one"]
    stop(page)


def test_a_microphone_that_may_not_be_used_is_said(page: Chrome, scripted: ScriptedService) -> None:
    page.execute_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('denied', 'NotAllowedError') }"
    )
    element(page, "listen").click()
    wait_for(page, "!problem.hidden")
    assert text(page, "problem").startswith("The browser may not use the microphone.")
    assert text(page, "state") == "Not listening"
    assert scripted.clients == []
