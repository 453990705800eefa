// A developer's app on openai-node, unmodified: verifies webhooks, accepts calls, talks on their WebSockets.
//
// Listens on the socket that WEBHOOK_FD numbers. Prints one JSON line for each thing that happens; `case.py` reads them.

import http from 'node:http';
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { fail, tell } from '../caller.mjs';

const client = new OpenAI({ maxRetries: 0 }); // OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_WEBHOOK_SECRET
const tool = {
  type: 'function',
  name: 'look_up_opening_hours',
  description: 'When are we open?',
  parameters: { type: 'object', properties: { day: { type: 'string' } } },
};

function talk(callID) {
  const realtime = new OpenAIRealtimeWS({ callID }, client);
  realtime.on('error', fail('realtime'));
  realtime.on('event', (event) => {
    tell('event', { event });
    if (event.type === 'session.created') {
      realtime.send({ type: 'response.create', response: { instructions: 'Greet the caller.' } });
    } else if (event.type === 'response.done') {
      for (const item of event.response.output) {
        if (item.type !== 'function_call') continue;
        const output = { type: 'function_call_output', call_id: item.call_id, output: 'nine to five' };
        realtime.send({ type: 'conversation.item.create', item: output });
        realtime.send({ type: 'response.create' });
      }
    } else if (event.type === 'input_audio_buffer.dtmf_event_received' && event.event === '*') {
      realtime.send({ type: 'output_audio_buffer.clear' });
    } else if (event.type === 'input_audio_buffer.dtmf_event_received') {
      client.realtime.calls
        .refer(callID, { target_uri: 'tel:+14155550123' })
        .then(() => tell('referred'))
        .catch(fail('refer'));
    }
  });
  realtime.socket.on('close', (code, reason) => tell('closed', { code, reason: String(reason) }));
}

async function takeWebhook(body, headers) {
  const event = await client.webhooks.unwrap(body, headers);
  tell('webhook', { type: event.type, data: event.data });
  if (event.type !== 'realtime.call.incoming') return;
  const callID = event.data.call_id;
  await client.realtime.calls.accept(callID, {
    type: 'realtime',
    model: 'gpt-realtime',
    instructions: 'Be brief.',
    audio: { input: { turn_detection: { type: 'server_vad', silence_duration_ms: 300 } } },
    tools: [tool],
  });
  tell('accepted', { call_id: callID });
  talk(callID);
}

const server = http.createServer((request, response) => {
  let body = '';
  request.setEncoding('utf8');
  request.on('data', (chunk) => (body += chunk));
  request.on('end', () =>
    takeWebhook(body, request.headers)
      .then(() => response.writeHead(200).end())
      .catch((error) => {
        fail('webhook')(error);
        response.writeHead(400).end();
      }),
  );
});

await client.realtime.calls.hangup('rtc_u0_0').catch((error) =>
  tell('not found', {
    class: error.constructor.name,
    status: error.status,
    code: error.code,
    param: error.param,
    requestID: error.requestID,
  }),
);
server.listen({ fd: Number(process.env.WEBHOOK_FD) }, () => tell('listening'));
