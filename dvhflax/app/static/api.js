// Requests to the server, see docs/app_api.md.

const ROOT = '/api/v1';

/** What the server refused; `message` says what to do, `status` is HTTP's. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** No answer at all: the server stopped, or is being started. */
export class Unreachable extends Error {}

async function request(method, path, body, headers = {}) {
  let answer;
  try {
    answer = await fetch(ROOT + path, {
      method, headers, body, cache: 'no-store', credentials: 'same-origin',
    });
  } catch (error) {
    throw new Unreachable('the server does not answer', {cause: error});
  }
  if (answer.ok) return answer;
  let text = `${method} failed (${answer.status})`;
  try {
    text = (await answer.json()).error ?? text;
  } catch { /* not JSON: the status says it */ }
  throw new Refused(text, answer.status);
}

async function json(method, path, value) {
  const body = value === undefined ? undefined : JSON.stringify(value);
  const headers = body ? {'Content-Type': 'application/json'} : {};
  const answer = await request(method, path, body, headers);
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

const one = encodeURIComponent;

export const about = () => json('GET', '/about');
export const patients = () => json('GET', '/patients');
export const sessions = () => json('GET', '/sessions');
export const openSession = (patient) => json('POST', '/sessions', {patient});
// As it is in its file: its checksum is of numbers as Python writes them.
export const replayTrail = async (text) => (await request(
  'POST', '/sessions', `{"trail":${text}}`,
  {'Content-Type': 'application/json'})).json();
export const session = (id) => json('GET', `/sessions/${one(id)}`);
export const templates = () => json('GET', '/templates');
export const saveTemplate = (key, template) =>
  json('PUT', `/templates/${one(key)}`, template);
export const deleteTemplate = (key) =>
  json('DELETE', `/templates/${one(key)}`);
export const job = (id) => json('GET', `/jobs/${one(id)}`);
export const stopJob = (id) => json('DELETE', `/jobs/${one(id)}`);

/** Changes of a session: `tune`, `undo`, ... each gives the new state. */
export const change = (id, what, value, method = 'POST') =>
  json(method, `/sessions/${one(id)}/${what}`, value);

/** `{units, gyPerUnit}` of a dose, `[Z][Y][X]`. */
export async function dose(id, name) {
  const answer = await request('GET', `/sessions/${one(id)}/doses/${one(name)}`);
  return {
    units: new Uint16Array(await answer.arrayBuffer()),
    gyPerUnit: Number(answer.headers.get('X-Gy-Per-Unit')),
  };
}

/** `{achieved, reference_gy, goals}` of a dose. */
export const measured = (id, name) =>
  json('GET', `/sessions/${one(id)}/doses/${one(name)}/dvh`);

/** Bits of the structures, `[Z][Y][X]`. */
export async function masks(id) {
  const answer = await request('GET', `/sessions/${one(id)}/masks`);
  const bytes = Number(answer.headers.get('X-Bytes') ?? 1);
  const buffer = await answer.arrayBuffer();
  if (bytes === 8) {  // the first 32 structures have bits enough
    return new Uint32Array(buffer).filter((_, n) => n % 2 === 0);
  }
  const Kind = {1: Uint8Array, 2: Uint16Array, 4: Uint32Array}[bytes];
  return new Kind(buffer);
}

/** CT numbers in HU, `[Z][Y][X]`. */
export async function ct(id) {
  const answer = await request('GET', `/sessions/${one(id)}/ct`);
  return new Int16Array(await answer.arrayBuffer());
}

/** A file that the server made: `{blob, name}`. */
export async function download(path) {
  const answer = await request('GET', path);
  const header = answer.headers.get('Content-Disposition') ?? '';
  const name = /filename="?([^";]+)"?/.exec(header)?.[1] ?? 'export';
  return {blob: await answer.blob(), name};
}

export const startUpload = (kind) => json('POST', '/uploads', {kind});
export const importUpload = (id, options) =>
  json('POST', `/uploads/${one(id)}/import`, options);
export const deleteUpload = (id) => json('DELETE', `/uploads/${one(id)}`);

/** One file of a folder; its path within it travels in a header. */
export function uploadFile(id, path, file) {
  const bytes = new TextEncoder().encode(path);
  const text = btoa(String.fromCharCode(...bytes));
  const url = text.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
  return request('PUT', `/uploads/${one(id)}/files`, file, {'X-Path': url});
}
