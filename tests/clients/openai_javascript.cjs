// OpenAI's client for JavaScript. Its classes for live audio insist on TLS.
'use strict';
const fs = require('node:fs');
const OpenAI = require('openai').default;
const { OpenAIRealtimeWebSocket } = require('openai/realtime/websocket');
const { OpenAIRealtimeWS } = require('openai/realtime/ws');
const { SAMPLE, WORDS, pieces, run, same, saysTheWords } = require('./checks.cjs');

const model = 'gpt-4o-transcribe';
const options = { apiKey: process.env.VOXTRAL_KEY, maxRetries: 0, timeout: 60_000 };
const client = new OpenAI({ ...options, baseURL: `${process.env.VOXTRAL_TLS_URL}/v1` });

function transcribe(fields = {}) {
  return client.audio.transcriptions.create({ file: fs.createReadStream(SAMPLE), model, ...fields });
}

// Has the sample transcribed, as the client of a transcription session.
function live(connection) {
  return new Promise((resolve, reject) => {
    let deltas = '';
    connection.on('error', reject);
    connection.on('session.created', () => {
      const input = { format: { type: 'audio/pcm', rate: 16000 }, transcription: { model }, turn_detection: null };
      connection.send({ type: 'session.update', session: { type: 'transcription', audio: { input } } });
    });
    connection.on('session.updated', () => {
      for (const piece of pieces(3200)) {
        connection.send({ type: 'input_audio_buffer.append', audio: piece.toString('base64') });
      }
      connection.send({ type: 'input_audio_buffer.commit' });
    });
    connection.on('conversation.item.input_audio_transcription.delta', (event) => (deltas += event.delta));
    connection.on('conversation.item.input_audio_transcription.completed', (event) => {
      connection.close();
      try {
        same(deltas, event.transcript);
        same(event.transcript, WORDS);
        resolve();
      } catch (error) {
        reject(error);
      }
    });
  });
}

run({
  async json() {
    same((await transcribe()).text, WORDS);
  },
  async text() {
    same((await transcribe({ response_format: 'text' })).trim(), WORDS);
  },
  async srt() {
    saysTheWords(await transcribe({ response_format: 'srt' }));
  },
  async vtt() {
    const subtitles = await transcribe({ response_format: 'vtt' });
    same(subtitles.slice(0, 7), 'WEBVTT\n');
    saysTheWords(subtitles.slice(7));
  },
  async verboseJson() {
    const answer = await transcribe({
      response_format: 'verbose_json',
      timestamp_granularities: ['word', 'segment'],
    });
    same(answer.words.map((word) => word.word).join(' '), WORDS);
    saysTheWords(answer.segments.map((segment) => segment.text).join(''));
  },
  async stream() {
    let deltas = '';
    let done;
    for await (const event of await transcribe({ stream: true })) {
      if (event.type === 'transcript.text.delta') deltas += event.delta;
      if (event.type === 'transcript.text.done') done = event.text;
    }
    same([deltas.trim(), done], [WORDS, WORDS]);
  },
  async errorsAreThoseOfTheClient() {
    const refused = async (running) => {
      try {
        return await running;
      } catch (error) {
        return [error.constructor, error.code];
      }
    };
    const notFound = await refused(transcribe({ model: 'no-such-model' }));
    same(notFound[0] === OpenAI.NotFoundError && notFound[1], 'model_not_found');
    const stranger = new OpenAI({ ...options, apiKey: 'another', baseURL: client.baseURL });
    const unknown = await refused(stranger.models.list());
    same(unknown[0] === OpenAI.AuthenticationError && unknown[1], 'invalid_api_key');
  },
  realtimeFromAServer() {
    return live(new OpenAIRealtimeWS({ intent: 'transcription' }, client));
  },
  realtimeFromABrowser() {
    return live(new OpenAIRealtimeWebSocket({ intent: 'transcription', dangerouslyAllowBrowser: true }, client));
  },
});
