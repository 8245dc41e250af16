"""Opens the page of a `voxtral serve` in Chromium: with a fake microphone that plays a recording, and with files.

usage: page.py VOXTRAL RECORDING WORDS [SCREENSHOTS]
"""

import contextlib
import pathlib
import re
import subprocess
import sys

from playwright.sync_api import expect, sync_playwright

# For loaded machines; nothing waits that long where all is well.
PATIENCE_MS = 60_000


@contextlib.contextmanager
def server(voxtral, *flags):
    """A server with the demo model; gives its address."""
    command = [voxtral, "serve", "-d", "digits", "--backend", "cpu", "--listen", "127.0.0.1:0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if found := re.search(r"http://[\d.:]+", line):
                yield found[0]
                break
        else:
            raise SystemExit("the server did not start")
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextlib.contextmanager
def page(playwright, address, recording, scheme="light"):
    """The page in a browser whose microphone hears the recording once. Fails if it asks another host, or its console complains."""
    browser = playwright.chromium.launch(
        executable_path="/usr/bin/chromium",
        args=[
            "--no-sandbox",  # it may run as root
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={recording}%noloop",
            "--autoplay-policy=no-user-gesture-required",
        ],
    )
    context = browser.new_context(color_scheme=scheme, viewport={"width": 900, "height": 620})
    opened = context.new_page()
    complaints = []
    opened.on("request", lambda request: request.url.startswith((address, "data:", "blob:")) or complaints.append(request.url))
    opened.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    opened.goto(address)
    yield opened, complaints
    browser.close()


def words(opened):
    return " ".join(opened.locator("#transcript p span:not(.pending)").all_inner_texts()).split()


def downloaded(opened, form):
    with opened.expect_download() as waiting:
        opened.locator(f"[data-format={form}]").click()
    return pathlib.Path(waiting.value.path()).read_text()


def a_microphone_is_heard(opened, want):
    expect(opened.locator("#model")).to_have_text("digits")
    # By keyboard alone.
    opened.locator("#microphone").focus()
    opened.keyboard.press("Enter")
    expect(opened.locator("#transcript")).to_contain_text(want[-1])
    opened.keyboard.press("Enter")
    expect(opened.locator("#status")).to_have_text("done")
    expect(opened.locator("#microphone")).to_have_text("Start the microphone")
    assert words(opened) == want, words(opened)
    times = [span.get_attribute("title") for span in opened.locator("#transcript p span[title]").all()]
    assert len(times) == len(want) and all(re.match(r"00:00:\d\d\.\d{3} to .*%", time) for time in times), times


def files_are_transcribed(opened, recording, want):
    opened.locator("#clear").click()
    opened.locator("#files").set_input_files([recording, recording])
    expect(opened.locator("#transcript h2")).to_have_count(2)
    expect(opened.locator("#status")).to_contain_text("done")
    assert words(opened) == want * 2, words(opened)
    assert downloaded(opened, "txt").split() == want * 2
    assert re.search(r"00:00:\d\d,\d{3} --> 00:00:\d\d,\d{3}\n" + want[0], downloaded(opened, "srt"))
    assert downloaded(opened, "vtt").startswith("WEBVTT\n")
    assert '"probability"' in downloaded(opened, "json")


def what_is_no_audio_is_said(opened, document):
    opened.locator("#files").set_input_files(document)
    expect(opened.locator("#status.failed")).to_contain_text(pathlib.Path(document).name)


def a_key_is_asked_for(opened, key):
    expect(opened.locator("#key")).to_be_visible()
    opened.locator("#key").fill(key)
    opened.locator("#key").press("Enter")
    expect(opened.locator("#model")).to_have_text("digits")


def main(voxtral, recording, text, screenshots=None):
    recording, want = str(pathlib.Path(recording).resolve()), text.split()
    with sync_playwright() as playwright:
        with server(voxtral) as address:
            with page(playwright, address, recording) as (opened, complaints):
                a_microphone_is_heard(opened, want)
                if screenshots:
                    opened.screenshot(path=f"{screenshots}/page.png")
                files_are_transcribed(opened, recording, want)
                assert not complaints, complaints
                what_is_no_audio_is_said(opened, __file__)
            if screenshots:
                with page(playwright, address, recording, "dark") as (opened, _):
                    opened.locator("#files").set_input_files(recording)
                    expect(opened.locator("#status")).to_contain_text("done")
                    opened.screenshot(path=f"{screenshots}/page-dark.png")
        keys = pathlib.Path("target/page-keys")
        keys.write_text("secret\n")
        with server(voxtral, "--api-key-file", str(keys)) as address:
            with page(playwright, address, recording) as (opened, _):
                a_key_is_asked_for(opened, "secret")
                a_microphone_is_heard(opened, want)
    print("page: a microphone, files, downloads, a document that is no audio, a key: 5 passed, 0 failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
