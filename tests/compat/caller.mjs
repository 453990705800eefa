// What the apps here have in common: a caller's voice, events to wait for, and lines for `case.py`.

export const RATE = 24000;

const output = process.stdout; // LiveKit's app puts a judge in its place
export const tell = (what, fields = {}) => output.write(JSON.stringify({ what, ...fields }) + '\n');
export const fail = (where) => (error) => {
  const said = error?.error?.error?.message ?? error?.error?.message ?? error?.stack ?? JSON.stringify(error);
  tell('fault', { where, message: String(said) });
};

// Half a second of a tone, then silence: PCM in pieces of 20 ms.
export function* saying() {
  const samples = new Int16Array(RATE * 1.4);
  for (let at = 0; at < RATE / 2; at++) samples[at] = 10000 * Math.sin((2 * Math.PI * 300 * at) / RATE);
  for (let at = 0; at < samples.length; at += 480) yield samples.slice(at, at + 480);
}

export const milliseconds = (count) => new Promise((resolve) => setTimeout(resolve, count));

export async function until(holds, what) {
  for (const end = Date.now() + 30000; ; ) {
    const found = holds();
    if (found) return found;
    if (Date.now() > end) throw new Error(typeof what === 'function' ? what() : `no ${what}`);
    await milliseconds(10);
  }
}

// The server's events as they came.
export class Events extends Array {
  keep(event) {
    this.push(event);
    tell('event', { event });
  }

  next(type, after = 0) {
    const came = () => `no ${type} after ${after} events; came: ${this.map((event) => event.type)}`;
    return until(() => this.slice(after).find((event) => event.type === type), came);
  }

  // The truncation of an item, whenever it came: a client's own may wait behind what it had said before.
  truncated(id) {
    const isItsOwn = (event) => event.type === 'conversation.item.truncated' && event.item_id === id;
    return until(() => this.find(isItsOwn), `truncation of ${id}`);
  }
}

export async function run(conversation) {
  await conversation().then(() => tell('done')).catch(fail('conversation'));
  output.write('', () => process.exit());
}
