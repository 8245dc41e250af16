#!/usr/bin/env python3
"""Draws docs/images/live.svg: a terminal in which the program hears samples/digits.wav as fast as it is spoken.

Needs the program (target/release/voxtral, or the first argument) and pyte (pip install pyte==0.8.2), which is a terminal.
"""

import fcntl
import html
import os
import pathlib
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
import time

import pyte

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLUMNS, LINES = 64, 6
COMMAND = "voxtral --stdin"
PICTURE_AT_S = 6.6
HEADER, BYTES_A_SECOND, PIECE = 44, 32_000, 2560


def speak(pipe):
    """Writes the recording no faster than it is spoken."""
    recording = (ROOT / "samples/digits.wav").read_bytes()
    os.write(pipe, recording[:HEADER])
    samples = recording[HEADER:]
    begin = time.monotonic()
    for at in range(0, len(samples), PIECE):
        time.sleep(max(0, begin + (at + PIECE) / BYTES_A_SECOND - time.monotonic()))
        os.write(pipe, samples[at : at + PIECE])
    os.close(pipe)


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/release/voxtral")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    reader, writer = os.pipe()
    environment = {**os.environ, "TERM": "xterm", "VOXTRAL_MODEL": "digits"}
    command = [program, "--backend", "cpu", "--stdin"]
    running = subprocess.Popen(command, stdin=reader, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT)
    os.close(theirs)
    threading.Thread(target=speak, args=[writer], daemon=True).start()

    screen = pyte.Screen(COLUMNS, LINES)
    terminal = pyte.ByteStream(screen)
    terminal.feed(f"$ {COMMAND}\r\n".encode())
    begin = time.monotonic()
    while (left := begin + PICTURE_AT_S - time.monotonic()) > 0:
        if select.select([ours], [], [], left)[0]:
            terminal.feed(os.read(ours, 65536))
    running.kill()
    # What is told of model and device differs from machine to machine.
    lines = [line.rstrip() for line in screen.display]
    lines = [line for line in lines if line and not line.startswith("voxtral: ")]
    (ROOT / "docs/images/live.svg").write_text(svg(lines))


def svg(lines):
    """A dark rectangle with these lines in it."""
    width, height = 8.4 * COLUMNS + 24, 20 * len(lines) + 24
    text = "".join(
        f'<text x="12" y="{26 + 20 * number}" xml:space="preserve">{html.escape(line)}</text>\n'
        for number, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" role="img" '
        'aria-label="a terminal: words as they are spoken, and below them time, level, lag and speed">\n'
        '<rect width="100%" height="100%" rx="6" fill="#1e1e1e"/>\n'
        '<g font-family="ui-monospace,Menlo,Consolas,monospace" font-size="14" fill="#d4d4d4">\n'
        f"{text}</g>\n</svg>\n"
    )


if __name__ == "__main__":
    main()
