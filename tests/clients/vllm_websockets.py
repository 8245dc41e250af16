"""What vLLM's clients send: the sequence of its published example, and what its own tests of the protocol ask for."""

import base64
import json

from websockets.asyncio.client import connect

from checks import URL, WORDS, check, pieces, run, same

MODEL = "mistralai/Voxtral-Mini-4B-Realtime-2602"
ADDRESS = URL.replace("http", "ws", 1) + "/v1/realtime"


async def send(socket, kind, **fields):
    await socket.send(json.dumps({"type": kind, **fields}))


async def receive(socket):
    return json.loads(await socket.recv())


async def begin(socket, model=MODEL):
    created = await receive(socket)
    same(created["type"], "session.created")
    assert created["id"] and created["created"] > 1_700_000_000, created
    await send(socket, "session.update", model=model)


async def append(socket, size):
    for piece in pieces(size):
        await send(socket, "input_audio_buffer.append", audio=base64.b64encode(piece).decode())


async def transcript(socket):
    """The text of the utterance that ends next."""
    text = ""
    while True:
        event = await receive(socket)
        if event["type"] == "transcription.delta":
            text += event["delta"]
        elif event["type"] == "transcription.done":
            same(event["text"], text)
            assert event["usage"]["prompt_tokens"] > 32, event
            return text
        assert event["type"] != "error", event


@check
async def the_published_example():
    async with connect(ADDRESS) as socket:
        await begin(socket)
        await send(socket, "input_audio_buffer.commit")
        await append(socket, 4096)
        await send(socket, "input_audio_buffer.commit", final=True)
        same(await transcript(socket), WORDS)


@check
async def a_short_utterance_and_then_a_long_one_in_small_pieces():
    async with connect(ADDRESS) as socket:
        await begin(socket)
        await send(socket, "input_audio_buffer.commit")
        silence = base64.b64encode(bytes(3200)).decode()
        await send(socket, "input_audio_buffer.append", audio=silence)
        await send(socket, "input_audio_buffer.commit", final=True)
        same(await transcript(socket), "")
        await send(socket, "input_audio_buffer.commit")
        await append(socket, 3200)
        await send(socket, "input_audio_buffer.commit", final=True)
        same(await transcript(socket), WORDS)


@check
async def an_utterance_without_audio_harms_nobody():
    async with connect(ADDRESS) as socket:
        await begin(socket)
        await send(socket, "input_audio_buffer.commit")
        await send(socket, "input_audio_buffer.commit", final=True)
        same(await transcript(socket), "")
    async with connect(ADDRESS) as socket:
        await begin(socket)
        await send(socket, "input_audio_buffer.commit")
        await append(socket, 3200)
        await send(socket, "input_audio_buffer.commit", final=True)
        same(await transcript(socket), WORDS)


@check
async def a_model_that_is_not_served_is_named():
    async with connect(ADDRESS) as socket:
        await begin(socket, model="no-such-model")
        event = await receive(socket)
        same((event["type"], event["code"]), ("error", "model_not_found"))
        assert "no-such-model" in event["error"], event


@check
async def a_commit_before_the_model_is_an_error():
    async with connect(ADDRESS) as socket:
        same((await receive(socket))["type"], "session.created")
        await send(socket, "input_audio_buffer.commit", final=True)
        event = await receive(socket)
        same((event["type"], event["code"]), ("error", "model_not_validated"))


@check
async def all_audio_at_once_as_guidellm_sends_it():
    async with connect(ADDRESS) as socket:
        await begin(socket)
        await append(socket, 1 << 19)
        await send(socket, "input_audio_buffer.commit", final=False)
        await send(socket, "input_audio_buffer.commit", final=True)
        same(await transcript(socket), WORDS)


run()
