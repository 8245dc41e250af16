"""Tries what a proxy in front of two servers must do, with the configurations of deploy/.

usage: proxies.py VOXTRAL ENVOY
"""

import asyncio
import base64
import contextlib
import json
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
import wave

import trustme
import websockets

ROOT = pathlib.Path(__file__).parents[2]
SAMPLE = ROOT / "samples/digits.wav"
WORDS = "four seven one one nine zero two six three five eight"
SLOTS = 4  # of each server
# For loaded machines; nothing waits that long where all is well.
PATIENCE_S = 120


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def get(url, tls=None, **options):
    """Status and body, whatever the status."""
    request = urllib.request.Request(url, **options)
    try:
        with urllib.request.urlopen(request, context=tls, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def same(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")


@contextlib.contextmanager
def running(command, log):
    """A program until the block ends."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Server:
    """A server of the demo model. It is an alias, too, by which an answer shows who gave it."""

    def __init__(self, stack, voxtral, name, folder):
        self.name = name
        self.port = free_port()
        log = folder / f"{name}.log"
        self.process = stack.enter_context(running([
            voxtral, "serve", "--listen", f"127.0.0.1:{self.port}", "-d", "digits", "--backend", "cpu",
            "--max-sessions", str(SLOTS), "--idle-timeout", str(PATIENCE_S), "--drain-timeout", str(PATIENCE_S),
            "--alias", f"whisper-1,{name}",
        ], log))  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while "serving at" not in log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server does not start:\n{log.read_text()}")
            time.sleep(0.1)

    def figure(self, name):
        _, figures = get(f"http://127.0.0.1:{self.port}/metrics")
        return sum(int(n) for n in re.findall(rf"^voxtral_{name}(?:{{.*}})? (\d+)$", figures, re.MULTILINE))


class Stream:
    """Live audio, as vLLM's clients send it: the first half when it opens, the rest before the text is asked for."""

    @classmethod
    async def open(cls, address, tls=None):
        self = cls()
        self.socket = await websockets.connect(f"{address}/v1/realtime", ssl=tls, open_timeout=PATIENCE_S)
        try:
            same(json.loads(await self.socket.recv())["type"], "session.created")
            await self.send({"type": "session.update", "model": "whisper-1"})
            await self.send({"type": "input_audio_buffer.commit"})
            with wave.open(str(SAMPLE)) as sample:
                audio = sample.readframes(sample.getnframes())
            pieces = [base64.b64encode(audio[at : at + 3200]).decode() for at in range(0, len(audio), 3200)]
            self.rest = pieces[len(pieces) // 2 :]
            for piece in pieces[: len(pieces) // 2]:
                await self.send({"type": "input_audio_buffer.append", "audio": piece})
        except BaseException:
            await self.socket.close()
            raise
        return self

    async def send(self, event):
        await self.socket.send(json.dumps(event))

    async def says_the_words(self, closed=1000):
        """Raises unless the rest brings out every word, and the socket closes with this code: the client's, or the server's."""
        for piece in self.rest:
            await self.send({"type": "input_audio_buffer.append", "audio": piece})
        await self.send({"type": "input_audio_buffer.commit", "final": True})
        while (event := json.loads(await self.socket.recv()))["type"] != "transcription.done":
            same(event["type"], "transcription.delta")
        same(event["text"].strip(), WORDS)
        if closed == 1000:
            await self.socket.close()
        await self.socket.wait_closed()
        same(self.socket.close_code, closed)


async def open_streams(number, address, tls=None):
    return await asyncio.gather(*(Stream.open(address, tls) for _ in range(number)))


async def finish(streams, **options):
    await asyncio.gather(*(stream.says_the_words(**options) for stream in streams))


class Checks:
    def __init__(self, port, tls, servers):
        self.http, self.live, self.tls, self.servers = f"https://127.0.0.1:{port}", f"wss://127.0.0.1:{port}", tls, servers

    def active(self):
        return [server.figure("streams_active") for server in self.servers]

    async def both_are_asked(self):
        """Waits until no stream runs, and the proxy has both for ready."""
        answered = set()
        while len(answered) < 2 or self.active() != [0, 0]:
            with contextlib.suppress(urllib.error.URLError):  # a proxy that is about to start
                _, models = await asyncio.to_thread(get, f"{self.http}/v1/models", self.tls)
                answered |= {server.name for server in self.servers if f'"{server.name}"' in models}
            await asyncio.sleep(0.1)

    async def eight_streams_are_spread(self):
        """Eight live streams run four on each server, each text is right, and what is more is refused with 503 and JSON"""
        streams = await open_streams(2 * SLOTS, self.live, self.tls)
        same(self.active(), [SLOTS, SLOTS])
        try:
            await Stream.open(self.live, self.tls)
            raise AssertionError("a ninth stream was opened")
        except websockets.InvalidStatus as refusal:
            same(refusal.response.status_code, 503)
            same(json.loads(refusal.response.body)["error"]["code"], "server_full")
            assert 1 <= int(refusal.response.headers["retry-after"]) <= 120
        for status, body in await self.upload(4, SAMPLE.read_bytes()):
            same((status, json.loads(body)["error"]["code"]), (503, "server_full"))
        await finish(streams)

    async def a_refusal_is_moved(self):
        """A stream that a full server refuses opens at the other"""
        full, other = self.servers
        # The proxy may have learnt that it is full before it asks it.
        for _ in range(20):
            before = full.figure("streams_refused_total")
            direct = await open_streams(SLOTS, f"ws://127.0.0.1:{full.port}")
            streams = await open_streams(SLOTS, self.live, self.tls)
            same(other.figure("streams_active"), SLOTS)
            refused = full.figure("streams_refused_total") - before
            await finish(direct + streams)
            if refused:
                return
            await self.both_are_asked()
        raise AssertionError("the full server was never asked")

    async def uploads_pass(self):
        """Four uploads at a time are transcribed"""
        for status, body in await self.upload(4, SAMPLE.read_bytes()):
            same((status, json.loads(body).get("text")), (200, WORDS))

    async def uploads_meet_a_full_server(self):
        """Uploads that meet a full server are transcribed by the other, or refused with 503 and JSON"""
        full, _ = self.servers
        direct = await open_streams(SLOTS, f"ws://127.0.0.1:{full.port}")
        # More than a proxy keeps of a request.
        for status, body in await self.upload(SLOTS, SAMPLE.read_bytes() + bytes(3 << 20)):
            answer = json.loads(body)
            same((status, answer.get("text") or answer["error"]["code"]), (200, WORDS) if status == 200 else (503, "server_full"))
        await finish(direct)

    async def upload(self, number, recording):
        """Status and body of so many uploads at a time."""
        fields = [(b"model", b"whisper-1"), (b'file"; filename="digits.wav', recording)]
        part = b'--edge\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        form = b"".join(part % field for field in fields) + b"--edge--\r\n"
        options = {"data": form, "headers": {"Content-Type": "multipart/form-data; boundary=edge"}}
        url = f"{self.http}/v1/audio/transcriptions"
        return await asyncio.gather(*(asyncio.to_thread(get, url, self.tls, **options) for _ in range(number)))

    async def words_come_at_once(self):
        """Words of live audio that is uploaded come before it ends"""
        audio = SAMPLE.read_bytes()
        host, port = self.http.removeprefix("https://").split(":")
        reader, writer = await asyncio.open_connection(host, port, ssl=self.tls)
        writer.write(
            b"PUT /v1/audio/transcriptions/live HTTP/1.1\r\nHost: %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            % (host.encode(), len(audio))
        )
        writer.write(audio[: len(audio) // 2])
        answer = await reader.readuntil(b"four")
        assert b"200 OK" in answer, answer
        writer.write(audio[len(audio) // 2 :])
        answer += await reader.read()
        writer.close()
        lines = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", answer).splitlines()  # without the lengths of its chunks
        final = json.loads([line for line in lines if b'"final"' in line][-1])
        same((final["text"], final["cut_short"]), (WORDS, False))

    async def figures_are_not_passed_on(self):
        """/metrics is not for those who come through the proxy"""
        status, _ = await asyncio.to_thread(get, f"{self.http}/metrics", self.tls)
        same(status, 404)

    async def draining_loses_nothing(self):
        """A server that ends finishes its streams and exits with 0; new ones open at the other"""
        streams = {server: [] for server in self.servers}
        for _ in range(4):
            before = self.active()
            stream = await Stream.open(self.live, self.tls)
            (taken,) = [server for server, was, now in zip(self.servers, before, self.active()) if now > was]
            streams[taken].append(stream)
        ends, stays = sorted(self.servers, key=lambda server: len(streams[server]), reverse=True)
        ends.process.send_signal(signal.SIGTERM)
        new = await open_streams(SLOTS - len(streams[stays]), self.live, self.tls)
        same(stays.figure("streams_active"), SLOTS)
        await finish(streams[ends], closed=1001)
        await finish(streams[stays] + new)
        same(await asyncio.to_thread(ends.process.wait, PATIENCE_S), 0)


def haproxy(folder, port, servers):
    config = (ROOT / "deploy/haproxy.cfg").read_text()
    config = replaced(config, " :443 ", f" 127.0.0.1:{port} ")
    config = replaced(config, "/etc/haproxy/voxtral.pem", str(folder / "both.pem"))
    for server, address in zip(servers, ["10.0.0.11", "10.0.0.12"]):
        config = replaced(config, f"{address}:8000", f"127.0.0.1:{server.port}")
    (folder / "haproxy.cfg").write_text(config)
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def envoy(folder, port, servers):
    config = (ROOT / "deploy/envoy.yaml").read_text()
    config = replaced(config, "address: 0.0.0.0, port_value: 443", f"address: 127.0.0.1, port_value: {port}")
    config = replaced(config, "/etc/envoy/", f"{folder}/")
    for server, address in zip(servers, ["10.0.0.11", "10.0.0.12"]):
        config = replaced(
            config, f"address: {address}, port_value: 8000", f"address: 127.0.0.1, port_value: {server.port}"
        )
    (folder / "envoy.yaml").write_text(config)
    return [sys.argv[2], "--disable-hot-restart", "--concurrency", "2", "--log-level", "warn", "-c", str(folder / "envoy.yaml")]


def replaced(config, old, new):
    assert old in config, f"there is no {old!r} in the configuration"
    return config.replace(old, new)


def run(proxy, voxtral):
    """Whether all checks hold behind this proxy."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ca = trustme.CA()
        certificate = ca.issue_cert("127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
        tls = ssl.create_default_context()
        ca.configure_trust(tls)

        servers = [Server(stack, voxtral, name, folder) for name in ["one", "two"]]
        port = free_port()
        log = folder / "proxy.log"
        stack.enter_context(running(proxy(folder, port, servers), log))
        checks = Checks(port, tls, servers)
        for check in [
            checks.eight_streams_are_spread,
            checks.a_refusal_is_moved,
            checks.uploads_pass,
            checks.uploads_meet_a_full_server,
            checks.words_come_at_once,
            checks.figures_are_not_passed_on,
            checks.draining_loses_nothing,  # last: one server is gone then
        ]:
            name = f"{proxy.__name__}: {check.__doc__}"
            try:
                asyncio.run(patiently(checks.both_are_asked()))
                asyncio.run(patiently(check()))
            except Exception:
                print(f"FAILED  {name}\n{traceback.format_exc()}\n{log.read_text()}", flush=True)
                return False
            print(f"ok      {name}", flush=True)
    return True


async def patiently(check):
    await asyncio.wait_for(check, PATIENCE_S)


passed = [run(proxy, sys.argv[1]) for proxy in [haproxy, envoy]]
sys.exit(0 if all(passed) else 1)
