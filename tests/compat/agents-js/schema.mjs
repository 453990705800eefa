// Prints the rules by which @openai/agents-realtime takes each server event that it knows, and a message into its history.
//
// `tests/testbed/agents_js.json` is what this printed; all tests judge their frames by it, and `case.py` compares.

import { z } from 'zod';

const inPackage = (name) => import(new URL(`./node_modules/@openai/agents-realtime/dist/${name}.mjs`, import.meta.url));
const { realtimeServerEventSchema } = await inPackage('openaiRealtimeEvents');
const { realtimeMessageItemSchema } = await inPackage('items');
const rules = (schema) => {
  const { $schema, ...rest } = z.toJSONSchema(schema, { io: 'input' });
  return rest;
};

const lines = realtimeServerEventSchema.options.map(
  (schema) => `${JSON.stringify(schema.shape.type.value)}: ${JSON.stringify(rules(schema))}`,
);
console.log(`{"message": ${JSON.stringify(rules(realtimeMessageItemSchema))},\n"events": {\n${lines.join(',\n')}\n}}`);
