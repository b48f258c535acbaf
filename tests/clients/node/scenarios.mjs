// Runs the scenarios that pytest prescribes on standard input with the official library and prints what came of each,
// as one JSON object by scenario. Pytest decides whether it is right.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import OpenAI, { toFile } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { text } from "node:stream/consumers";
import { z } from "zod";

const { baseURL, scenarios } = JSON.parse(await text(process.stdin));
const MESSAGES = [{ role: "user", content: "Hello" }];
const TOOLS = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];

const PLACE = zodResponseFormat(z.object({ city: z.string() }), "place");

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
  async runTools({ openai }, { model }) {
    const seen = [];
    const weather = (argument) => {
      seen.push(argument);
      return "sunny";
    };
    const tools = [{ type: "function", function: { ...TOOLS[0].function, function: weather, parse: JSON.parse } }];
    const runner = openai.chat.completions.runTools({ model, messages: MESSAGES, tools });
    return { text: await runner.finalContent(), seen };
  },
  async parse({ openai }, { model }) {
    const completion = await openai.chat.completions.parse({ model, messages: MESSAGES, response_format: PLACE });
    return { parsed: completion.choices[0].message.parsed };
  },
  async parseStream({ openai }, { model }) {
    const runner = openai.chat.completions.stream({ model, messages: MESSAGES, response_format: PLACE });
    return { parsed: (await runner.finalChatCompletion()).choices[0].message.parsed };
  },
  async hangUp({ openai }, { model }) {
    const stream = await openai.chat.completions.create({ model, messages: MESSAGES, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content) break; // leaving the loop aborts the request
    }
    return {};
  },
  /** The same stream as both libraries read it. */
  async odd({ openai }, { key, model }) {
    const runner = openai.chat.completions.stream({ model, messages: MESSAGES });
    const [choice] = (await runner.finalChatCompletion()).choices;
    const calls = (choice.message.tool_calls ?? []).map((call) => [call.id, call.function.name, call.function.arguments]);
    const sdk = createOpenAICompatible({ name: "tollway", baseURL, apiKey: key }).chatModel(model);
    const prompt = [{ role: "user", content: [{ type: "text", text: "Hello" }] }];
    const seen = { text: "", calls: [], finish: null, errors: [] };
    for await (const part of (await sdk.doStream({ prompt })).stream) {
      if (part.type === "text-delta") seen.text += part.delta;
      if (part.type === "tool-call") seen.calls.push([part.toolCallId, part.toolName, part.input]);
      if (part.type === "finish") seen.finish = part.finishReason.raw;
      if (part.type === "error") seen.errors.push(String(part.error));
    }
    return { text: choice.message.content ?? "", calls, finish: choice.finish_reason, sdk: seen };
  },
  async embed({ openai }, { model }) {
    return { vector: (await openai.embeddings.create({ model, input: "Hello" })).data[0].embedding };
  },
  /** Any method: `method` is its path in the library, `body` its one argument; streams and pages are collected. */
  async call({ openai }, { method, body }) {
    const names = method.split(".");
    const last = names.pop();
    const owner = names.reduce((found, name) => found[name], openai);
    const value = await owner[last](body);
    return { value: value[Symbol.asyncIterator] ? await collect(value) : value };
  },
  async speech({ openai }, { model }) {
    const answer = await openai.audio.speech.create({ model, voice: "alloy", input: "Hello" });
    return { bytes: [...new Uint8Array(await answer.arrayBuffer())] };
  },
  async transcription({ openai }, { model }) {
    const file = await toFile(Uint8Array.of(0, 13, 10, 255), "sound.wav");
    return await openai.audio.transcriptions.create({ model, file });
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
