// What both apps here are made of: an agent with a tool, and what is told of a session.

import { RealtimeAgent, tool } from '@openai/agents/realtime';
import { z } from 'zod';
import { fail, tell } from '../caller.mjs';

const schemas = new URL('./node_modules/@openai/agents-realtime/dist/openaiRealtimeEvents.mjs', import.meta.url);
const { parseRealtimeEvent, realtimeServerEventSchema } = await import(schemas);
const known = new Set(realtimeServerEventSchema.options.map((schema) => schema.shape.type.value));

// The SDK says here what it could not make sense of, and goes on.
console.error = (...said) => fail('console.error')(new Error(said.map(String).join(' ')));
console.warn = (...said) => fail('console.warn')(new Error(said.map(String).join(' ')));

export const agent = new RealtimeAgent({
  name: 'Receptionist',
  instructions: 'Be brief.',
  tools: [
    tool({
      name: 'look_up_opening_hours',
      description: 'When are we open?',
      parameters: z.object({ day: z.string() }),
      execute: async ({ day }) => {
        tell('tool', { day });
        return 'nine to five';
      },
    }),
  ],
});

// An event that fails the SDK's schema becomes a generic one, of which nothing is done, in silence.
function judge(event) {
  const { isGeneric } = parseRealtimeEvent({ data: JSON.stringify(event) });
  if (!isGeneric || !known.has(event.type)) return;
  fail('schema')(realtimeServerEventSchema.safeParse(event).error);
}

export function watch(session, events) {
  session.on('transport_event', (event) => {
    judge(event);
    events.keep(event);
  });
  session.on('error', fail('session'));
  session.on('audio_interrupted', () => tell('interrupted'));
  session.on('agent_tool_end', (context, owner, called, result) => tell('tool ended', { result }));
  session.transport.on('connection_change', (status) => tell('connection', { status }));
}

// The conversation as the SDK holds it: who said what, in its order.
export const remembered = (session) =>
  session.history.map((item) =>
    item.type === 'message'
      ? `${item.role}: ${item.content.map((part) => part.transcript ?? part.text ?? '').join('')}`
      : `${item.name}: ${item.output}`,
  );
