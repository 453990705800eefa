// An app on openai-node, unmodified, in a session without a call: `new OpenAIRealtimeWS({ model }, client)`.
//
// Speaks by itself and ends by itself. Prints one JSON line for each thing that happens; `case.py` reads them.

import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { Events, fail, run, saying, tell } from '../caller.mjs';

const client = new OpenAI({ maxRetries: 0 }); // OPENAI_API_KEY, OPENAI_BASE_URL
const realtime = new OpenAIRealtimeWS({ model: 'gpt-realtime' }, client);
const events = new Events();
realtime.on('event', (event) => events.keep(event));
realtime.on('error', fail('realtime'));
const tool = { type: 'function', name: 'look_up_opening_hours', parameters: { type: 'object' } };

function speak() {
  for (const piece of saying()) {
    realtime.send({ type: 'input_audio_buffer.append', audio: Buffer.from(piece.buffer).toString('base64') });
  }
  return events.length;
}

await run(async () => {
  await events.next('session.created');
  const transcription = { model: 'whisper-1' };
  realtime.send({
    type: 'session.update',
    session: { type: 'realtime', instructions: 'Be brief.', audio: { input: { transcription } }, tools: [tool] },
  });
  await events.next('session.updated');

  let since = speak();
  const first = await events.next('response.done', since);
  tell('spoken', { said: first.response.output[0].content[0].transcript });

  since = speak();
  const asked = await events.next('response.done', since);
  const [call] = asked.response.output;
  assert.equal(call.name, tool.name);
  assert.deepEqual(JSON.parse(call.arguments), { day: 'monday' });
  since = events.length;
  const output = { type: 'function_call_output', call_id: call.call_id, output: 'nine to five' };
  realtime.send({ type: 'conversation.item.create', item: output });
  realtime.send({ type: 'response.create' });
  const { item_id } = await events.next('response.output_audio.delta', since);

  realtime.send({ type: 'response.cancel' });
  const cut = await events.next('response.done', since);
  assert.deepEqual(cut.response.status_details, { type: 'cancelled', reason: 'client_cancelled' });
  realtime.send({ type: 'conversation.item.truncate', item_id, content_index: 0, audio_end_ms: 400 });
  await events.truncated(item_id);
  realtime.send({ type: 'conversation.item.retrieve', item_id });
  const { item } = await events.next('conversation.item.retrieved', since);
  const [{ transcript, audio }] = item.content;
  tell('cut', { kept: transcript, bytes: Buffer.from(audio, 'base64').length });

  const closed = new Promise((resolve) => realtime.socket.on('close', resolve));
  realtime.close({ code: 1000, reason: 'done' });
  assert.equal(await closed, 1000);
});
