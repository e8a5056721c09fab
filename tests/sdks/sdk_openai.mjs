// openai-node against a gateway: what an app uses of it. `node sdk_openai.mjs URL KEY` prints one line of JSON.
import OpenAI, { AuthenticationError, NotFoundError } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [url, key] = process.argv.slice(2);
const MODEL = "support";
const BUSY = "busy";
const messages = [{ role: "user", content: "Return the sum" }];
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 5 });

const Reduction = z.object({ axis: z.boolean(), keep: z.boolean() });
const SUM = {
  type: "function",
  function: {
    name: "sum",
    strict: true,
    parameters: {
      type: "object",
      properties: { axis: { type: "integer", enum: [0, 1] } },
      required: ["axis"],
      additionalProperties: false,
    },
  },
};

const ask = (more = {}) =>
  client.chat.completions.create({ model: MODEL, messages, max_tokens: 8, temperature: 0, ...more });

async function gathered(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

// A chat answered at once.
async function whole() {
  const answer = await ask();
  return {
    model: answer.model,
    finish: answer.choices[0].finish_reason,
    tokens: answer.usage.completion_tokens,
  };
}

// A chat answered piece by piece, with its usage at the end.
async function streamed() {
  const chunks = await gathered(await ask({ stream: true, stream_options: { include_usage: true } }));
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  return {
    models: [...new Set(chunks.map((chunk) => chunk.model))],
    same: text === (await ask()).choices[0].message.content,
    tokens: chunks.at(-1).usage.completion_tokens,
  };
}

// An answer that is an object of the app's own type.
async function structured() {
  const answer = await client.chat.completions.parse({
    model: MODEL,
    messages,
    max_tokens: 200,
    response_format: zodResponseFormat(Reduction, "reduction"),
  });
  return Object.keys(answer.choices[0].message.parsed).sort();
}

// A tool that the model must call.
async function tool() {
  const tool_choice = { type: "function", function: { name: "sum" } };
  const answer = await ask({ max_tokens: 400, frequency_penalty: 2, tools: [SUM], tool_choice });
  const called = answer.choices[0].message.tool_calls[0].function;
  return { name: called.name, arguments: Object.keys(JSON.parse(called.arguments)) };
}

// The older completions.
async function completed() {
  const asked = { model: MODEL, prompt: "Return", max_tokens: 4, temperature: 0 };
  const answer = await client.completions.create(asked);
  const chunks = await gathered(await client.completions.create({ ...asked, stream: true }));
  return { same: chunks.map((chunk) => chunk.choices[0].text).join("") === answer.choices[0].text };
}

// The responses API, whole and as typed events.
async function responded() {
  const asked = { model: MODEL, input: "Return the sum", max_output_tokens: 8, temperature: 0 };
  const answer = await client.responses.create(asked);
  const events = await gathered(await client.responses.create({ ...asked, stream: true }));
  const deltas = events.filter((event) => event.type === "response.output_text.delta");
  return {
    model: answer.model,
    same: deltas.map((event) => event.delta).join("") === answer.output_text,
    tokens: answer.usage.output_tokens,
    events: [events[0].type, events.at(-1).type],
    models: [...new Set([events[0].response.model, events.at(-1).response.model])],
  };
}

// A request that must fail in the SDK's own words.
async function refused(as, kind, model) {
  try {
    await as.chat.completions.create({ model, messages });
  } catch (error) {
    return error instanceof kind ? [error.status, error.code] : [String(error)];
  }
  return [];
}

// A stream that the app leaves after three pieces.
async function aborted() {
  const stream = await ask({ max_tokens: 900, stream: true, ignore_eos: true });
  let pieces = 0;
  for await (const _ of stream) {
    pieces += 1;
    if (pieces === 3) stream.controller.abort();
  }
  return pieces;
}

// A model with one slot: the second request is told to wait, and the SDK comes back by itself.
async function retried() {
  const held = await ask({ model: BUSY, max_tokens: 250, stream: true, ignore_eos: true });
  const answer = await ask({ model: BUSY, max_tokens: 1 });
  held.controller.abort();
  return answer.model === BUSY;
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);
const said = {
  models: models.sort(),
  aborted: await aborted(),
  whole: await whole(),
  streamed: await streamed(),
  structured: await structured(),
  tool: await tool(),
  completed: await completed(),
  responded: await responded(),
  unknown: await refused(client, NotFoundError, "nobody"),
  stranger: await refused(client.withOptions({ apiKey: "sk-wrong" }), AuthenticationError, MODEL),
  retried: await retried(),
};
console.log(JSON.stringify(said));
