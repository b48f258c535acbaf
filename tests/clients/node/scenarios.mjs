// Runs the scenarios that pytest prescribes on standard input with the official library and prints what came of each,
// as one JSON object by scenario. Pytest decides whether it is right.

import OpenAI from "openai";
import { text } from "node:stream/consumers";

const { baseURL, scenarios } = JSON.parse(await text(process.stdin));
const MESSAGES = [{ role: "user", content: "Hello" }];
const TOOLS = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];

/** A client whose requests on the wire are counted. */
function client({ key, maxRetries = 0, timeout }) {
  const counted = { requests: 0 };
  const fetchCounted = (url, options) => {
    counted.requests += 1;
    return fetch(url, options);
  };
  const openai = new OpenAI({ baseURL, apiKey: key, maxRetries, timeout, fetch: fetchCounted });
  return { openai, counted };
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join("");

const actions = {
  async completion({ openai }, { model, body }) {
    const completion = await openai.chat.completions.create({ model, messages: MESSAGES, ...body });
    return { completion, text: completion.choices[0].message.content, id: completion._request_id };
  },
  async stream({ openai }, { model, body }) {
    const chunks = await collect(
      await openai.chat.completions.create({ model, messages: MESSAGES, stream: true, ...body }),
    );
    return { chunks, text: textOf(chunks) };
  },
  async streamHelper({ openai }, { model, body }) {
    const runner = openai.chat.completions.stream({ model, messages: MESSAGES, ...body });
    const completion = await runner.finalChatCompletion();
    return { completion, text: completion.choices[0].message.content };
  },
  async tools({ openai }, { model }) {
    const completion = await openai.chat.completions.create({ model, messages: MESSAGES, tools: TOOLS });
    const [call] = completion.choices[0].message.tool_calls;
    const answer = { role: "tool", tool_call_id: call.id, content: "sunny" };
    const messages = [...MESSAGES, completion.choices[0].message, answer];
    const second = await openai.chat.completions.create({ model, messages, tools: TOOLS });
    return { call, finish: completion.choices[0].finish_reason, text: second.choices[0].message.content };
  },
  async hangUp({ openai }, { model }) {
    const stream = await openai.chat.completions.create({ model, messages: MESSAGES, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content) break; // leaving the loop aborts the request
    }
    return {};
  },
  async retrieveModel({ openai }, { model }) {
    return { model: await openai.models.retrieve(model) };
  },
};

const results = {};
for (const [name, scenario] of Object.entries(scenarios)) {
  const made = client(scenario);
  const began = performance.now();
  try {
    results[name] = await actions[scenario.action](made, scenario);
  } catch (error) {
    const { status, code, param, type, requestID } = error;
    results[name] = { error: error.constructor.name, status, code, param, type, requestID, message: error.message };
  }
  results[name].requests = made.counted.requests;
  results[name].took_ms = performance.now() - began;
}
process.stdout.write(JSON.stringify(results));
