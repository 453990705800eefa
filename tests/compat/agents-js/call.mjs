// A developer's app on @openai/agents-realtime, unmodified: takes calls with OpenAIRealtimeSIP.
//
// Listens on the socket that WEBHOOK_FD numbers. Prints one JSON line for each thing that happens; `case.py` reads them.

import http from 'node:http';
import OpenAI from 'openai';
import { OpenAIRealtimeSIP, RealtimeSession } from '@openai/agents/realtime';
import { Events, fail, tell } from '../caller.mjs';
import { agent, remembered, watch } from './desk.mjs';

const client = new OpenAI({ maxRetries: 0 }); // OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_WEBHOOK_SECRET
const realtime = process.env.OPENAI_BASE_URL.replace(/^http/, 'ws') + '/realtime';
const options = { model: 'gpt-realtime' };

async function talk(callId) {
  await client.realtime.calls.accept(callId, await OpenAIRealtimeSIP.buildInitialConfig(agent, options));
  tell('accepted', { call_id: callId });
  const session = new RealtimeSession(agent, { ...options, transport: new OpenAIRealtimeSIP() });
  watch(session, new Events());
  session.on('transport_event', (event) => {
    if (event.type !== 'input_audio_buffer.dtmf_event_received') return;
    if (event.event === '*') session.interrupt();
    if (event.event === '#') {
      tell('history', { history: remembered(session) });
      client.realtime.calls.hangup(callId).catch(fail('hangup'));
    }
  });
  const url = `${realtime}?call_id=${callId}`;
  await session.connect({ apiKey: process.env.OPENAI_API_KEY, callId, url });
  session.transport.sendEvent({ type: 'response.create' });
}

async function takeWebhook(body, headers) {
  const event = await client.webhooks.unwrap(body, headers);
  tell('webhook', { type: event.type });
  if (event.type === 'realtime.call.incoming') talk(event.data.call_id).catch(fail('call'));
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
server.listen({ fd: Number(process.env.WEBHOOK_FD) }, () => tell('listening'));
