// A question whose answer may take six hours, at half the price, and is asked for later.
//
//     npm install openai
//     OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=sk-... node node.mjs "Why is the sky blue?"

import OpenAI from 'openai';

const client = new OpenAI({ defaultHeaders: { 'Offpeak-Deadline': '6h' } });
const model = process.env.MODEL ?? 'gpt-4o-mini';
let response = await client.responses.create({ model, input: process.argv[2], background: true });
console.log(`taken in: ${response.id}`);
// A long poll: answered when there is an answer, after 60 seconds at the latest.
const wait = { headers: { Prefer: 'wait=60' } };
while (['queued', 'in_progress'].includes(response.status)) {
  response = await client.responses.retrieve(response.id, {}, wait);
}
console.log(response.output_text);
