#!/usr/bin/env python3
"""How late are words that are spoken into a microphone?

Starts a PulseAudio server of its own with an output that goes nowhere, records what that plays with `voxtral --mic`, plays a recording
into it as fast as it is spoken, and compares when each word was written with when it ended, by the time of the recording that the
program gives for it (known to 80 ms) and the moment at which it began to listen.

Usage: microphone_latency.py [PROGRAM [WAV [VOXTRAL_FLAG...]]]
Needs pulseaudio and pulseaudio-utils (Debian).
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "target/release/voxtral"
    path = sys.argv[2] if len(sys.argv) > 2 else "samples/digits.wav"
    flags = sys.argv[3:]
    offline = json.loads(subprocess.check_output([program, "--silent", "--format", "json", *flags, path]))
    expected = [word["text"] for word in offline["words"]]

    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "HOME": folder, "XDG_RUNTIME_DIR": folder, "PULSE_SERVER": f"unix:{folder}/native"}
        server = [
            "pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm", "--use-pid-file=no", "--log-level=error",
            "-L", f"module-native-protocol-unix socket={folder}/native", "-L", "module-null-sink sink_name=nowhere rate=48000",
        ]
        processes = [subprocess.Popen(server, env=env)]
        try:
            while not os.path.exists(f"{folder}/native"):
                time.sleep(0.05)
            # The output takes two seconds to wake up, and stays awake as long as somebody listens.
            processes.append(subprocess.Popen(["parec", "--latency-msec=20"], env=env, stdout=subprocess.DEVNULL))
            time.sleep(4)
            words = hear(program, path, flags, env)
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()

    if [word for word, _ in words] != expected:
        print(f"other words: {' '.join(word for word, _ in words)}")
    for word, late in words:
        print(f"{word:>12}  {late * 1e3:5.0f} ms after its end")
    late = [late for _, late in words]
    print(f"delay {offline['delay_ms']} ms; mean {sum(late) / len(late) * 1e3:.0f} ms, worst {max(late) * 1e3:.0f} ms")


def hear(program, path, flags, env):
    """Each word, and how long after its end it was written, in seconds."""
    command = [program, "--mic", "--format", "jsonl", *flags]
    voxtral = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while b"listening to" not in voxtral.stderr.readline():
        pass
    start = time.monotonic()
    # When each letter was written, and each word with its end.
    written, words = [], []

    def listen():
        for line in voxtral.stdout:
            event = json.loads(line)
            if event["type"] == "partial":
                written.extend((letter, time.monotonic() - start) for letter in event["text"] if letter != " ")
            elif event["type"] == "word":
                words.append((event["text"], event["end_s"]))

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(1)
    subprocess.run(["paplay", path], env=env, check=True)
    time.sleep(2)
    voxtral.send_signal(2)
    listener.join()
    voxtral.wait()
    late, letters = [], 0
    for word, end_s in words:
        letters += len(word)
        late.append((word, written[letters - 1][1] - end_s))
    return late


main()
