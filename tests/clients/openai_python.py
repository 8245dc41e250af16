"""OpenAI's Python client."""

import base64

from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from checks import MODEL, SAMPLE, URL, WORDS, check, pieces, run, same, says_the_words

OPTIONS = {"base_url": f"{URL}/v1", "api_key": "unused", "max_retries": 0, "timeout": 60}
client = OpenAI(**OPTIONS)


def transcribe(**options):
    return client.audio.transcriptions.create(**{"file": SAMPLE, "model": MODEL, **options})


@check
def json():
    answer = transcribe()
    same(answer.text, WORDS)
    same(answer.usage.type, "duration")


@check
def text():
    same(transcribe(response_format="text").strip(), WORDS)


@check
def srt():
    subtitles = transcribe(response_format="srt")
    assert subtitles.startswith("1\n00:00:0") and " --> " in subtitles, subtitles
    says_the_words(subtitles)


@check
def vtt():
    subtitles = transcribe(response_format="vtt")
    assert subtitles.startswith("WEBVTT\n"), subtitles
    says_the_words(subtitles.removeprefix("WEBVTT"))


@check
def verbose_json_with_words_and_segments():
    answer = transcribe(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    same(answer.text, WORDS)
    assert abs(float(answer.duration) - 8.195) < 0.02, answer.duration
    says_the_words("".join(segment.text for segment in answer.segments))
    same([word.word for word in answer.words], WORDS.split())
    starts = [word.start for word in answer.words]
    assert starts == sorted(starts) and all(word.start <= word.end for word in answer.words), answer.words


@check
def verbose_json_without_asking_for_times():
    answer = transcribe(response_format="verbose_json")
    assert answer.segments and not answer.words, answer


@check
def log_probabilities():
    answer = transcribe(include=["logprobs"])
    same("".join(token.token for token in answer.logprobs).strip(), WORDS)
    assert all(token.logprob <= 0 for token in answer.logprobs), answer.logprobs


@check
def stream():
    events = list(transcribe(stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert deltas and all(deltas), deltas
    same("".join(deltas).strip(), WORDS)
    same(events[-1].type, "transcript.text.done")
    same(events[-1].text, WORDS)
    assert events[-1].usage.total_tokens > 0, events[-1].usage


@check
async def several_at_a_time():
    import asyncio

    async with AsyncOpenAI(**OPTIONS) as many:
        create = many.audio.transcriptions.create
        answers = await asyncio.gather(*(create(file=SAMPLE, model=MODEL) for _ in range(4)))
    same([answer.text for answer in answers], [WORDS] * 4)


@check
def errors_are_those_of_the_client():
    for options, kind, param in [
        ({"model": "no-such-model"}, NotFoundError, "model"),
        ({"response_format": "diarized_json"}, BadRequestError, "response_format"),
        ({"file": ("a.wav", b"not audio")}, BadRequestError, "file"),
        ({"file": ("a.wav", b"")}, BadRequestError, "file"),
    ]:
        try:
            answer = transcribe(**options)
        except APIStatusError as error:
            same((type(error), error.param), (kind, param))
        else:
            raise AssertionError(f"{options} gave {answer}")


@check
def models():
    assert MODEL in [model.id for model in client.models.list()]


async def session(connection, **audio):
    """Begins a transcription session."""
    same((await connection.recv()).type, "session.created")
    audio = {"format": {"type": "audio/pcm", "rate": 16000}, "transcription": {"model": MODEL}, **audio}
    await connection.session.update(session={"type": "transcription", "audio": {"input": audio}})
    updated = await connection.recv()
    same(updated.type, "session.updated")
    same(updated.session.audio.input.format.rate, 16000)


async def append(connection):
    for piece in pieces(3200):
        await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())


async def transcript(connection):
    """The next transcript that is complete."""
    deltas = ""
    async for event in connection:
        if event.type == "conversation.item.input_audio_transcription.delta":
            deltas += event.delta
        elif event.type == "conversation.item.input_audio_transcription.completed":
            same(deltas.strip(), event.transcript)
            assert event.usage, event
            return event.transcript
        assert event.type != "error", event
    raise AssertionError("the server closed")


@check
async def realtime_where_the_client_commits():
    async with AsyncOpenAI(**OPTIONS) as live:
        async with live.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            await session(connection, turn_detection=None)
            for _ in range(2):
                await append(connection)
                await connection.input_audio_buffer.commit()
                same(await transcript(connection), WORDS)


@check
async def realtime_where_the_server_finds_turns():
    async with AsyncOpenAI(**OPTIONS) as live:
        async with live.realtime.connect(model="gpt-realtime-whisper") as connection:
            detection = {"type": "server_vad", "silence_duration_ms": 1500}
            await session(connection, turn_detection=detection)
            await append(connection)
            silence = base64.b64encode(bytes(2 * 16000 * 3)).decode()
            await connection.input_audio_buffer.append(audio=silence)
            same(await transcript(connection), WORDS)


run()
