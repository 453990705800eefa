// An app on @openai/agents-realtime, unmodified, in a session without a call: OpenAIRealtimeWebSocket at a node's URL.
//
// Speaks by itself and ends by itself. Prints one JSON line for each thing that happens; `case.py` reads them.

import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { OpenAIRealtimeWebSocket, RealtimeSession } from '@openai/agents/realtime';
import { Events, RATE, milliseconds, run, saying, tell, until } from '../caller.mjs';
import { agent, remembered, watch } from './desk.mjs';

const client = new OpenAI({ maxRetries: 0 }); // OPENAI_API_KEY, OPENAI_BASE_URL
const turnDetection = { type: 'server_vad', interruptResponse: true, silenceDurationMs: 300 };
const session = new RealtimeSession(agent, {
  model: 'gpt-realtime',
  transport: new OpenAIRealtimeWebSocket(),
  config: { audio: { input: { transcription: { model: 'whisper-1' }, turnDetection } } },
});
const events = new Events();
watch(session, events);
let soundMs = 0;
session.on('audio', ({ data }) => (soundMs += data.byteLength / 2 / (RATE / 1000)));

function speak() {
  for (const piece of saying()) session.sendAudio(piece.buffer);
  return events.length;
}

await run(async () => {
  const { value } = await client.realtime.clientSecrets.create({
    session: { type: 'realtime', model: 'gpt-realtime' },
  });
  const url = `${process.env.OPENAI_BASE_URL.replace(/^http/, 'ws')}/realtime?model=gpt-realtime`;
  await session.connect({ apiKey: value, url });
  await events.next('session.updated');

  let since = speak();
  const first = await events.next('response.done', since);
  assert.equal(first.response.status, 'completed');
  const said = first.response.output[0].content[0].transcript;
  await until(() => soundMs >= said.length * 60, 'sound of the whole answer');
  tell('spoken', { said, soundMs });
  await milliseconds(soundMs); // it is played, else the SDK truncates it

  since = speak();
  const call = await events.next('response.output_item.done', since);
  assert.equal(call.item.name, 'look_up_opening_hours');
  since = events.indexOf(await events.next('response.done', since)) + 1;
  await events.next('response.output_audio.delta', since);
  speak();
  const cut = await events.next('response.done', since);
  assert.equal(cut.response.status_details.reason, 'turn_detected');
  const { id } = cut.response.output[0];
  await events.truncated(id);
  const retrieved = (event) => event.type === 'conversation.item.retrieved' && event.item.id === id;
  await until(() => events.some(retrieved), 'what the SDK asks for when an item was truncated');
  await events.next('response.done', events.indexOf(cut) + 1);
  await until(() => remembered(session).at(-1).startsWith('assistant: All other days'), 'history');
  tell('history', { history: remembered(session) });

  // The first of the user's words is taken out, and other words stand in its place.
  const content = [{ type: 'input_text', text: 'Good evening.' }];
  const instead = { itemId: 'msg_in_its_place', type: 'message', role: 'user', status: 'completed', content };
  const [gone, ...rest] = session.history;
  session.updateHistory([instead, ...rest]);
  const placed = () => session.history[0].itemId === instead.itemId;
  await until(() => placed() && !session.history.some((item) => item.itemId === gone.itemId), 'item at the root');
  tell('rewritten', { history: remembered(session) });

  since = events.length;
  session.sendMessage('Thank you, goodbye.');
  const last = await events.next('response.done', since);
  assert.equal(last.response.status, 'completed');
  assert(session.usage.outputTokens > 0, 'no usage');
  session.close();
});
