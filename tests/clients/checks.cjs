// What checks.py is, for the scripts in JavaScript.
'use strict';
const fs = require('node:fs');
const path = require('node:path');

const SAMPLE = process.env.VOXTRAL_SAMPLE;
const WORDS = 'four seven one one nine zero two six three five eight';
const PATIENCE_MS = 60_000;

function same(found, expected) {
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    throw new Error(`${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);
  }
}

function saysTheWords(text) {
  same((text.match(/[a-z]+/g) ?? []).join(' '), WORDS);
}

// The sample in pieces of so many bytes: 16 kHz, 16 bit, mono.
function pieces(size) {
  const wav = fs.readFileSync(SAMPLE);
  const samples = wav.subarray(wav.indexOf('data') + 8);
  return Array.from({ length: Math.ceil(samples.length / size) }, (_, at) => samples.subarray(at * size, (at + 1) * size));
}

function withPatience(running) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('it takes too long')), PATIENCE_MS);
  });
  return Promise.race([running, late]).finally(() => clearTimeout(timer));
}

// Runs functions by their names, and ends the program: with 1 if one of them failed.
async function run(checks) {
  const script = path.basename(process.argv[1], '.cjs');
  let failed = 0;
  const entries = Object.entries(checks);
  for (const [name, check] of process.argv.includes('short') ? entries.slice(0, 1) : entries) {
    const what = `${script}: ${name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)}`;
    try {
      await withPatience(check());
      console.log(`ok      ${what}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED  ${what}\n${error.stack}`);
    }
  }
  process.exit(failed || !entries.length ? 1 : 0);
}

module.exports = { SAMPLE, WORDS, pieces, run, same, saysTheWords };
