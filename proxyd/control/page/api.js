// Calls of the admin API, by relative URLs: it may be under any base path.
// The token is kept in this tab only; whoever needs one waits for the event `signin`.

const KEY = 'proxyd-token';
const TIMEOUT_MS = 20000;

export const events = new EventTarget();

// What the API refuses, or that it cannot be reached (status 0).
export class Failure extends Error {
  constructor(status, message, field = null, problems = []) {
    super(message);
    this.status = status;
    this.field = field;
    this.problems = problems.length || !field ? problems : [{ field, error: message }];
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

// `match` is sent as If-Match, `known` as If-None-Match: then a body of null says that nothing has changed.
export async function call(method, path, { body, match, known } = {}) {
  const headers = {};
  const text = token.get();
  if (text) headers.Authorization = `Bearer ${text}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (match) headers['If-Match'] = match;
  if (known) headers['If-None-Match'] = known;
  let answer, octets;
  try {
    answer = await fetch(path, {
      method, headers, cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    octets = await answer.text();
  } catch (error) {
    throw new Failure(0, 'proxyd cannot be reached.');
  }
  const tag = answer.headers.get('ETag');
  if (answer.status === 304) return { body: null, tag };
  const content = parsed(octets);
  if (answer.ok && content !== undefined) return { body: content, tag };
  // Another call may have got another token meanwhile.
  if (answer.status === 401 && token.get() === text) {
    token.forget();
    events.dispatchEvent(new Event('signin'));
  }
  const { error, field, problems } = content ?? {};
  throw new Failure(answer.status, error ?? `The answer was ${answer.status} ${answer.statusText}.`, field, problems);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
