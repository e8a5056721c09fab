// The Vercel AI SDK against a gateway. `node sdk_vercel.mjs URL KEY` prints one line of JSON.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, Output, streamText, tool } from "ai";
import { z } from "zod";

const [url, key] = process.argv.slice(2);
const BUSY = "busy";
const prompt = "Return the sum";
const IGNORE_EOS = { providerOptions: { linnet: { ignore_eos: true } } };

const provider = (apiKey) =>
  createOpenAICompatible({
    name: "linnet",
    baseURL: `${url}/v1`,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
const linnet = provider(key);
const model = linnet("support");
const usual = { model, prompt, maxOutputTokens: 8, temperature: 0, maxRetries: 5 };

// A chat answered at once.
async function whole() {
  const answer = await generateText(usual);
  return {
    model: answer.response.modelId,
    finish: answer.finishReason,
    tokens: answer.usage.outputTokens,
  };
}

// A chat answered piece by piece, with its usage at the end.
async function streamed() {
  const stream = streamText(usual);
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  return {
    same: text === (await generateText(usual)).text,
    tokens: (await stream.usage).outputTokens,
    model: (await stream.response).modelId,
  };
}

// An answer that is an object of the app's own type.
async function structured() {
  const schema = z.object({ axis: z.boolean(), keep: z.boolean() });
  const answer = await generateText({ ...usual, maxOutputTokens: 200, output: Output.object({ schema }) });
  return Object.keys(answer.output).sort();
}

// A tool that the model must call.
async function called() {
  const sum = tool({
    description: "adds up",
    inputSchema: z.object({ axis: z.boolean() }),
    strict: true,
  });
  const answer = await generateText({
    ...usual,
    maxOutputTokens: 400,
    frequencyPenalty: 2,
    tools: { sum },
    toolChoice: { type: "tool", toolName: "sum" },
  });
  const [call] = answer.toolCalls;
  return { name: call.toolName, arguments: Object.keys(call.input) };
}

// The older completions.
async function completed() {
  const answer = await generateText({ ...usual, model: linnet.completionModel("support") });
  return answer.text.length > 0;
}

// A request that must fail in the SDK's own words.
async function refused(asked) {
  try {
    await generateText({ ...usual, model: asked });
  } catch (error) {
    return APICallError.isInstance(error) ? [error.statusCode, error.data.error.code] : [String(error)];
  }
  return [];
}

// A stream that the app leaves after three pieces.
async function aborted() {
  const leaving = new AbortController();
  const stream = streamText({ ...usual, maxOutputTokens: 900, abortSignal: leaving.signal, ...IGNORE_EOS });
  let pieces = 0;
  for await (const part of stream.fullStream) {
    if (part.type === "text-delta" && pieces < 3 && ++pieces === 3) leaving.abort();
  }
  return pieces;
}

// A model with one slot: the second request is told to wait, and the SDK comes back by itself.
async function retried() {
  const leaving = new AbortController();
  const busy = { ...usual, model: linnet(BUSY) };
  const held = streamText({ ...busy, maxOutputTokens: 250, abortSignal: leaving.signal, ...IGNORE_EOS });
  for await (const part of held.fullStream) if (part.type === "text-delta") break;
  const answer = await generateText({ ...busy, maxOutputTokens: 1 });
  leaving.abort();
  return answer.response.modelId === BUSY;
}

const said = {
  aborted: await aborted(),
  whole: await whole(),
  streamed: await streamed(),
  structured: await structured(),
  tool: await called(),
  completed: await completed(),
  unknown: await refused(linnet("nobody")),
  stranger: await refused(provider("sk-wrong")("support")),
  retried: await retried(),
};
console.log(JSON.stringify(said));
