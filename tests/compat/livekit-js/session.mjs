// An agent on LiveKit Agents for Node, unmodified, with its OpenAI plugin's RealtimeModel at a node's base URL.
//
// Speaks by itself and ends by itself. Prints one JSON line for each thing that happens; `case.py` reads them.

import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { initializeLogger, llm, voice } from '@livekit/agents';
import * as openai from '@livekit/agents-plugin-openai';
import { z } from 'zod';
import { Events, fail, run, tell, until } from '../caller.mjs';
import { Loudspeaker, Microphone } from './ears.mjs';

// What the framework logs: a warning or worse is a fault. While it closes it warns that it takes no more of its own input.
let worst = 40;
const judge = new Writable({
  write(chunk, encoding, done) {
    for (const line of String(chunk).trim().split('\n')) {
      if (JSON.parse(line).level >= worst) fail('log')(new Error(line));
    }
    done();
  },
});
Object.defineProperty(process, 'stdout', { value: judge });
initializeLogger({ pretty: false, level: 'info' });

const receptionist = new voice.Agent({
  instructions: 'Be brief.',
  tools: {
    look_up_opening_hours: llm.tool({
      description: 'When are we open?',
      parameters: z.object({ day: z.string() }),
      execute: async ({ day }) => {
        tell('tool', { day });
        return 'nine to five';
      },
    }),
  },
});

// OPENAI_API_KEY
const model = new openai.realtime.RealtimeModel({ baseURL: process.env.OPENAI_BASE_URL, model: 'gpt-realtime' });
const events = new Events();
const open = model.session.bind(model);
model.session = () => open().on('openai_server_event_received', (event) => events.keep(event));

const session = new voice.AgentSession({
  llm: model,
  aecWarmupDuration: null, // else the caller is not heard in the first seconds of the agent's speech
  turnHandling: { turnDetection: 'realtime_llm', interruption: { resumeFalseInterruption: false } },
});
const [microphone, loudspeaker] = [new Microphone(), new Loudspeaker()];
session.input.audio = microphone;
session.output.audio = loudspeaker;
session.on('error', fail('session'));
session.on('function_tools_executed', ({ functionCallOutputs: [{ output }] }) =>
  tell('tool ended', { result: JSON.parse(output) }),
);
session.on('user_input_transcribed', ({ transcript, isFinal }) => isFinal && tell('heard', { transcript }));
const played = (what) => until(() => session.agentState === 'listening' && !loudspeaker.isPlaying, `${what} played`);

await run(async () => {
  await session.start({ agent: receptionist });
  await events.next('session.updated');
  session.generateReply({ instructions: 'Greet the caller.' });
  await events.next('response.done');
  await until(() => loudspeaker.soundMs > 0, 'sound');
  await played('greeting');

  let since = events.length;
  await microphone.speak();
  await events.next('response.done', since);
  await played('answer');

  since = events.length;
  await microphone.speak();
  const call = await events.next('response.output_item.done', since);
  assert.equal(call.item.name, 'look_up_opening_hours');
  since = events.indexOf(await events.next('response.done', since)) + 1;
  await events.next('response.output_audio.delta', since);
  await until(() => loudspeaker.isPlaying, 'sound of the answer');
  await microphone.speak();
  const cut = await events.next('response.done', since);
  assert.equal(cut.response.status, 'cancelled');
  await events.truncated(cut.response.output[0].id);
  await events.next('response.done', events.indexOf(cut) + 1);
  await played('last answer');
  const said = session.history.items.filter((item) => item.type === 'message');
  tell('history', { history: said.map((item) => `${item.role}: ${item.textContent}`) });
  worst = 50;
  await session.close();
});
