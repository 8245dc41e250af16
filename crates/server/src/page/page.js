// The page: audio goes to the server, words come back with their times.

const RATE = 16_000;
const DELAYS_MS = [80, 160, 240, 480, 960, 1200, 2400];
// Words that the model gives less than this are underlined.
const SURE = 0.6;

const $ = (id) => document.getElementById(id);
const transcript = $('transcript');
/** All that was heard: `{ name, words: [{ word, start, end, probability }] }`. */
let recordings = [];

// ---- what is shown

function tell(text, failed = false) {
  $('status').textContent = text;
  $('status').classList.toggle('failed', failed);
}

function clock(seconds, comma = '.') {
  const ms = Math.round(seconds * 1000);
  const two = (n) => String(Math.floor(n)).padStart(2, '0');
  return `${two(ms / 3_600_000)}:${two((ms / 60_000) % 60)}:${two((ms / 1000) % 60)}${comma}${String(ms % 1000).padStart(3, '0')}`;
}

/** Whether there is something to download or to clear. */
function downloadable(is) {
  for (const button of document.querySelectorAll('.downloads button')) button.disabled = !is;
}

/** A place in the transcript for what is heard next. */
function begin(name) {
  const recording = { name, words: [] };
  recordings.push(recording);
  const heading = Object.assign(document.createElement('h2'), { textContent: name });
  const paragraph = document.createElement('p');
  const pending = Object.assign(document.createElement('span'), { className: 'pending' });
  paragraph.append(pending);
  transcript.append(heading, paragraph);
  const follow = () => { transcript.scrollTop = transcript.scrollHeight; };
  return {
    /** Letters of a word that is not complete. */
    text(delta) {
      pending.textContent += delta;
      follow();
    },
    word(word) {
      recording.words.push(word);
      const shown = document.createElement('span');
      shown.textContent = `${word.word} `;
      const sure = word.probability === undefined ? '' : `, ${Math.round(word.probability * 100)} %`;
      shown.title = `${clock(word.start)} to ${clock(word.end)}${sure}`;
      shown.classList.toggle('unsure', word.probability < SURE);
      pending.before(shown);
      const rest = pending.textContent.trimStart();
      pending.textContent = rest.startsWith(word.word) ? rest.slice(word.word.length) : '';
      downloadable(true);
      follow();
    },
  };
}

// ---- the server

function headers() {
  const key = $('key').value;
  return key ? { authorization: `Bearer ${key}` } : {};
}

async function refusal(response) {
  if (response.status === 401) {
    $('keyed').hidden = false;
    $('key').focus();
  }
  const body = await response.json().catch(() => null);
  return new Error(body?.error?.message ?? `the server answered ${response.status}`);
}

/** Transcribes a file; its words come while it is read. */
async function transcribe(file) {
  const shown = begin(file.name);
  tell(`${file.name}: sending`);
  const url = `v1/audio/transcriptions/live?delay_ms=${$('delay').value}`;
  const response = await fetch(url, { method: 'POST', headers: headers(), body: file });
  if (!response.ok) throw await refusal(response);
  let left = '';
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    const lines = (left + piece).split('\n');
    left = lines.pop();
    for (const event of lines.filter(Boolean).map(JSON.parse)) {
      if (event.type === 'word') {
        shown.word({ word: event.text, start: event.start_s, end: event.end_s, probability: Math.exp(event.logprob) });
        tell(`${file.name}: ${clock(event.end_s)}`);
      }
      if (event.type === 'error') throw new Error(event.error.message ?? event.error);
    }
  }
  tell(`${file.name}: done`);
}

// ---- the microphone

/** What runs while the microphone does. */
let live = null;

async function listen() {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const context = new AudioContext({ sampleRate: RATE });
  await context.audioWorklet.addModule('microphone.js');
  const worklet = new AudioWorkletNode(context, 'microphone');
  context.createMediaStreamSource(stream).connect(worklet);

  const shown = begin(`Microphone, ${new Date().toLocaleTimeString()}`);
  const key = $('key').value;
  const address = new URL('v1/realtime', location.href.replace(/^http/, 'ws'));
  const socket = new WebSocket(address, key ? ['realtime', `openai-insecure-api-key.${key}`] : []);
  let sent = 0;
  const send = (message) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));
  socket.onopen = () => {
    const model = $('model').textContent;
    send({ type: 'session.update', model, timestamp_granularities: ['word'], target_streaming_delay_ms: Number($('delay').value) });
    send({ type: 'input_audio_buffer.commit' });
    worklet.port.onmessage = ({ data }) => {
      sent += data.byteLength / 2 / RATE;
      send({ type: 'input_audio_buffer.append', audio: btoa(String.fromCharCode(...new Uint8Array(data))) });
    };
    tell('listening');
  };
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === 'transcription.delta') shown.text(event.delta);
    if (event.type === 'transcription.word') {
      shown.word(event);
      tell(`${clock(sent)} heard, ${Math.round((sent - event.end) * 1000)} ms behind`);
    }
    if (event.type === 'error') stop(event.error.message ?? event.error, true);
    if (event.type === 'transcription.done') stop('done');
  };
  socket.onerror = () => stop('the server cannot be reached, or refuses: it may be full, or want a key', true);
  socket.onclose = () => stop();

  /** Ends the recording; the socket stays until the last word has come. */
  const finish = () => {
    if (context.state === 'closed') return;
    stream.getTracks().forEach((track) => track.stop());
    context.close();
    send({ type: 'input_audio_buffer.commit', final: true });
  };
  const close = () => {
    finish();
    socket.onerror = socket.onclose = null;
    socket.close();
  };
  live = { finish, close };
}

function stop(text, failed) {
  if (!live) return;
  live.close();
  live = null;
  pressed(false);
  if (text) tell(text, failed);
}

function pressed(on) {
  $('microphone').setAttribute('aria-pressed', String(on));
  $('microphone').textContent = on ? 'Stop the microphone' : 'Start the microphone';
}

$('microphone').onclick = async () => {
  if (live) {
    tell('waiting for the last words');
    live.finish();
    return;
  }
  pressed(true);
  try {
    await listen();
  } catch (error) {
    pressed(false);
    tell(error.message, true);
  }
};

// ---- files

async function all(files) {
  for (const file of files) {
    try {
      await transcribe(file);
    } catch (error) {
      tell(`${file.name}: ${error.message}`, true);
      return;
    }
  }
}

$('choose').onclick = () => $('files').click();
$('files').onchange = ({ target }) => all(target.files);
addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('dragging');
});
addEventListener('dragleave', () => document.body.classList.remove('dragging'));
addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('dragging');
  all(event.dataTransfer.files);
});

// ---- downloads

/** Cues of at most 7 s and about two lines; a pause ends one. */
function cues(words) {
  const found = [];
  for (const word of words) {
    const last = found.at(-1);
    const fits = last && word.start - last.end < 1 && word.end - last.start <= 7 && last.text.length + word.word.length < 80;
    if (fits) Object.assign(last, { end: word.end, text: `${last.text} ${word.word}` });
    else found.push({ start: word.start, end: word.end, text: word.word });
  }
  return found;
}

const text = (recording) => recording.words.map(({ word }) => word).join(' ');
const FORMATS = {
  txt: () => recordings.map((recording) => `${text(recording)}\n`).join('\n'),
  json: () => JSON.stringify(recordings.map((recording) => ({ ...recording, text: text(recording) })), null, 2),
  srt: () => subtitles((cue, i) => `${i + 1}\n${clock(cue.start, ',')} --> ${clock(cue.end, ',')}\n${cue.text}\n`),
  vtt: () => `WEBVTT\n\n${subtitles((cue) => `${clock(cue.start)} --> ${clock(cue.end)}\n${cue.text}\n`)}`,
};
const subtitles = (write) => recordings.flatMap(({ words }) => cues(words)).map(write).join('\n');

for (const button of document.querySelectorAll('[data-format]')) {
  button.onclick = () => {
    const { format } = button.dataset;
    const url = URL.createObjectURL(new Blob([FORMATS[format]()], { type: 'text/plain' }));
    Object.assign(document.createElement('a'), { href: url, download: `transcript.${format}` }).click();
    URL.revokeObjectURL(url);
  };
}

$('clear').onclick = () => {
  recordings = [];
  transcript.replaceChildren();
  downloadable(false);
};

// ---- at the beginning

for (const ms of DELAYS_MS) $('delay').append(new Option(`${ms} ms`, ms, ms === 480, ms === 480));

async function greet() {
  const response = await fetch('v1/models', { headers: headers() });
  if (!response.ok) throw await refusal(response);
  const { data } = await response.json();
  $('model').textContent = data[0].id;
}
$('key').onchange = () => greet().then(() => tell(''), (error) => tell(error.message, true));
greet().catch((error) => tell(error.message, true));
