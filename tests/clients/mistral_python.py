"""Mistral's Python client."""

import struct

from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from mistralai.client.models import AudioFormat

from checks import SAMPLE, URL, WORDS, check, pcm, pieces, run, same

MODEL = "voxtral-mini-transcribe-realtime-2602"
client = Mistral(api_key="unused", server_url=URL, timeout_ms=60_000)


def recording():
    return {"content": SAMPLE.read_bytes(), "file_name": SAMPLE.name}


async def events_of(chunks, **options):
    """All events of a stream of audio."""
    async def stream():
        for chunk in chunks:
            yield chunk

    events = client.audio.realtime.transcribe_stream(stream(), MODEL, **options)
    return [event async for event in events]


def text_of(events):
    """The text of events, if they are those of a transcription from its beginning to its end."""
    kinds = [event.type for event in events]
    assert "error" not in kinds and kinds[0] == "session.created" and kinds[-1] == "transcription.done", kinds
    deltas = "".join(event.text for event in events if event.type == "transcription.text.delta")
    same(deltas.strip(), events[-1].text)
    segments = [event.text for event in events if event.type == "transcription.segment"]
    same(" ".join(segments), events[-1].text)
    same([segment.text for segment in events[-1].segments], segments)
    return events[-1].text


@check
async def realtime():
    events = await events_of(pieces(3200))
    same(text_of(events), WORDS)
    done = events[-1]
    same(done.usage.prompt_audio_seconds, 9)
    assert done.usage.prompt_tokens > 32 and done.usage.completion_tokens >= 102, done.usage


@check
def rest():
    answer = client.audio.transcriptions.complete(model=MODEL, file=recording())
    same(answer.text, WORDS)
    same(answer.usage.prompt_audio_seconds, 9)


@check
def rest_with_times():
    for granularity in ["segment", "word"]:
        answer = client.audio.transcriptions.complete(
            model=MODEL, file=recording(), timestamp_granularities=[granularity]
        )
        same(" ".join(segment.text for segment in answer.segments), WORDS)
        assert all(segment.start <= segment.end for segment in answer.segments), answer.segments


@check
def rest_stream():
    with client.audio.transcriptions.stream(model=MODEL, file=recording()) as stream:
        events = list(stream)
    deltas = [event.data.text for event in events if event.event == "transcription.text.delta"]
    assert deltas and all(deltas), events
    same("".join(deltas).strip(), WORDS)
    same(events[-1].event, "transcription.done")
    same(events[-1].data.text, WORDS)


@check
def rest_errors():
    try:
        client.audio.transcriptions.complete(model="no-such-model", file=recording())
    except SDKError as error:
        same(error.status_code, 404)
    else:
        raise AssertionError("there is no such model")


@check
async def realtime_in_every_encoding():
    samples = struct.unpack(f"<{len(pcm()) // 2}h", pcm())
    floats = [sample / 32768 for sample in samples]
    for encoding, encoded in {
        "pcm_s32le": struct.pack(f"<{len(samples)}i", *(sample << 16 for sample in samples)),
        "pcm_f16le": struct.pack(f"<{len(samples)}e", *floats),
        "pcm_f32le": struct.pack(f"<{len(samples)}f", *floats),
    }.items():
        chunks = [encoded[at : at + 9999] for at in range(0, len(encoded), 9999)]
        events = await events_of(chunks, audio_format=AudioFormat(encoding=encoding, sample_rate=16000))
        updated = next(event for event in events if event.type == "session.updated")
        same(updated.session.audio_format.encoding, encoding)
        same(text_of(events), WORDS)


@check
async def realtime_with_a_delay():
    events = await events_of(pieces(3200), target_streaming_delay_ms=1000)
    updated = next(event for event in events if event.type == "session.updated")
    same(updated.session.target_streaming_delay_ms, 1040)
    same(text_of(events), WORDS)


@check
async def realtime_without_audio():
    same(text_of(await events_of([])), "")


async def until(events, kind):
    """Events up to the first of this kind."""
    found = []
    async for event in events:
        found.append(event)
        assert event.type != "error", event
        if event.type == kind:
            return found
    raise AssertionError(f"no {kind} came, but {found}")


@check
async def flush_brings_out_what_was_said_and_the_session_goes_on():
    connection = await client.audio.realtime.connect(MODEL)
    async with connection:
        events = connection.events()
        # Within the silence after "four seven".
        half = 2 * int(16000 * 1.9)
        await connection.send_audio(pcm()[:half])
        await connection.flush_audio()
        segment = (await until(events, "transcription.segment"))[-1]
        same(segment.text, "four seven")
        # Pipecat's and LiveKit's plugins wait for this one.
        same((await until(events, "transcription.done"))[-1].text, "four seven")
        await connection.send_audio(pcm()[half:])
        await connection.end_audio()
        rest = await until(events, "transcription.done")
        same(rest[-1].text, WORDS)


@check
async def realtime_errors_have_numbers_and_end_nothing():
    connection = await client.audio.realtime.connect(MODEL)
    async with connection:
        events = connection.events()
        await connection.send_audio(bytes(262_146))
        for piece in pieces(100_000):
            await connection.send_audio(piece)
        await connection.update_session(target_streaming_delay_ms=240)
        for _ in range(2):
            error = await anext(event async for event in events if event.type == "error")
            assert isinstance(error.error.code, int) and error.error.message, error
        await connection.end_audio()
        same((await until(events, "transcription.done"))[-1].text, WORDS)


@check
async def a_model_that_is_not_served_is_refused():
    try:
        await client.audio.realtime.connect("no-such-model")
    except Exception as error:
        assert "404" in str(error), error
    else:
        raise AssertionError("there is no such model")


run()
