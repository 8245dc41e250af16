"""Live audio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from conftest import DIGITS, RATE, WORDS

from voxtral_rs import AudioError, Model, Partial, Segment, Stream, VoxtralError, Word

Samples = npt.NDArray[np.int16]


def feed_in_pieces(stream: Stream, samples: Samples, size: int = 1280) -> None:
    for start in range(0, len(samples), size):
        stream.feed(samples[start : start + size])
    stream.finish()


def words_of(events: Sequence[Partial | Word | Segment]) -> list[Word]:
    return [event for event in events if isinstance(event, Word)]


@pytest.mark.parametrize("size", [1, 160, 1281, 200_000])
def test_a_stream_hears_what_a_recording_is(model: Model, samples: Samples, size: int) -> None:
    if size == 1:
        samples = samples[:16_000]
    with model.stream() as stream:
        feed_in_pieces(stream, samples, size)
        events = list(stream)
    heard = model.transcribe(samples, RATE)
    assert words_of(events) == heard.words
    assert "".join(event.text for event in events if isinstance(event, Partial)) == heard.text
    assert events[-1] == Segment(heard.text, 0.0, heard.duration)


def test_text_comes_before_the_end(model: Model, samples: Samples) -> None:
    with model.stream(delay_ms=160) as stream:
        stream.feed(samples[: 3 * RATE])
        first = next(stream)
        assert isinstance(first, Partial) and WORDS.startswith(first.text)
        assert 0 < first.at < 3
        stream.feed(samples[3 * RATE :])
        stream.finish()
        assert list(stream)[-1] == Segment(WORDS, 0.0, 8.195)


def test_pauses_end_segments(model: Model, samples: Samples) -> None:
    with model.stream(endpoint_ms=300) as stream:
        feed_in_pieces(stream, samples)
        segments = [event for event in stream if isinstance(event, Segment)]
    heard = model.transcribe(DIGITS, endpoint_ms=300)
    assert len(segments) > 1
    assert [said for said in segments if said.text] == heard.segments


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_any_rate_and_channels(model: Model, samples: Samples, rate: int) -> None:
    at = np.arange(len(samples) * rate // RATE) * RATE / rate
    floats = np.interp(at, np.arange(len(samples)), samples / 32768)
    with model.stream(rate) as stream:
        for start in range(0, len(floats), 1000):
            piece = floats[start : start + 1000]
            stream.feed(np.stack([piece, piece], axis=1))
        stream.finish()
        *_, last = stream
    assert isinstance(last, Segment) and last.text == WORDS
    assert last.end == pytest.approx(8.195, abs=2e-3)


def test_one_thread_may_feed_more_than_the_queues_hold(model: Model, samples: Samples) -> None:
    # Two minutes are more than ten seconds of audio and a minute of events.
    long = np.tile(samples, 15)
    with model.stream() as stream:
        stream.feed(long)
        stream.finish()
        *_, last = stream
    assert isinstance(last, Segment) and last.text == model.transcribe(long, RATE).text


def test_one_thread_feeds_and_another_reads(model: Model, samples: Samples) -> None:
    with model.stream() as stream:
        feeder = threading.Thread(target=feed_in_pieces, args=(stream, samples))
        feeder.start()
        *_, last = stream
        feeder.join()
    assert isinstance(last, Segment) and last.text == WORDS


def test_async_streams_need_no_threads(model: Model, samples: Samples) -> None:
    # More than there are threads in a loop's executor.
    streams = 40

    async def hear() -> str:
        with model.stream() as stream:
            stream.feed(samples[: 2 * RATE])
            stream.finish()
            return "".join([event.text async for event in stream if isinstance(event, Partial)])

    async def hear_all() -> list[str]:
        before = threading.active_count()
        heard = await asyncio.gather(*(hear() for _ in range(streams)))
        assert threading.active_count() == before
        return list(heard)

    assert asyncio.run(hear_all()) == [model.transcribe(samples[: 2 * RATE], RATE).text] * streams


def test_an_async_reader_waits_for_what_is_fed_later(model: Model, samples: Samples) -> None:
    async def hear() -> list[Partial | Word | Segment]:
        with model.stream() as stream:
            reading = asyncio.ensure_future(collect(stream))
            for start in range(0, len(samples), 8000):
                await asyncio.sleep(0.01)
                stream.feed(samples[start : start + 8000])
            stream.finish()
            return await reading

    async def collect(stream: Stream) -> list[Partial | Word | Segment]:
        return [event async for event in stream]

    assert words_of(asyncio.run(hear())) == model.transcribe(DIGITS).words


def test_a_cancelled_reader_can_be_followed_by_another(model: Model, samples: Samples) -> None:
    async def hear() -> Partial | Word | Segment:
        with model.stream() as stream:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(stream), 0.1)
            feed_in_pieces(stream, samples)
            return [event async for event in stream][-1]

    assert asyncio.run(hear()) == Segment(WORDS, 0.0, 8.195)


def test_a_finished_stream_takes_no_more(model: Model, samples: Samples) -> None:
    with model.stream() as stream:
        stream.finish()
        stream.finish()
        with pytest.raises(VoxtralError, match="the stream is finished"):
            stream.feed(samples)
        assert list(stream) == [Segment("", 0.0, 0.0)]
        assert list(stream) == []


def test_bad_samples_leave_a_stream_as_it_is(model: Model, samples: Samples) -> None:
    with model.stream() as stream:
        for bad in (np.zeros((2, 1000)), np.zeros(4, np.int64), None):
            with pytest.raises((TypeError, ValueError)):
                stream.feed(bad)  # type: ignore[arg-type]
        with pytest.raises(AudioError, match="0 channels"):
            stream.feed(np.zeros((10, 0)))
        stream.feed(np.zeros(0))
        stream.feed(np.full(RATE, np.nan))
        assert stream.notices == [f"{RATE} samples are not finite numbers: taken as silence"]
        feed_in_pieces(stream, samples)
        *_, last = stream
    assert isinstance(last, Segment) and last.text == WORDS


def test_closing_ends_those_who_wait(model: Model) -> None:
    stream = model.stream()
    outcome: list[str] = []

    def read() -> None:
        try:
            next(stream)
        except VoxtralError as error:
            outcome.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    stream.close()
    reader.join(30)
    assert outcome == ["the stream is closed"]
    stream.close()
    for use in (lambda: stream.feed(np.zeros(10)), stream.finish, lambda: next(stream)):
        with pytest.raises(VoxtralError, match="the stream is closed"):
            use()


def test_closing_ends_an_async_reader(model: Model) -> None:
    async def wait() -> None:
        stream = model.stream()
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        stream.close()
        with pytest.raises(VoxtralError, match="the stream is closed"):
            await asyncio.wait_for(reading, 30)

    asyncio.run(wait())
