// OpenAI's SDK for Node as a client: makes one of the calls below and prints what came of it as one line of JSON.
//
// node client.mjs '{"call": "stream", "origin": "http://127.0.0.1:4000", ...}'

import OpenAI from "openai";

const asked = JSON.parse(process.argv[2]);
const client = new OpenAI({ baseURL: `${asked.origin}/v1`, apiKey: asked.key, maxRetries: asked.retries ?? 0, timeout: 5000 });
const chat = (more) => client.chat.completions.create({ model: asked.model, messages: asked.messages, ...more });
const response = (more) => client.responses.create({ model: asked.model, input: asked.messages, ...more });
const tokens = ({ usage }) => [usage.prompt_tokens ?? usage.input_tokens, usage.completion_tokens ?? usage.output_tokens];

async function joined(stream, textOf) {
  let text = "";
  let last;
  for await (const event of stream) {
    text += textOf(event) ?? "";
    last = event;
  }
  return [text, last];
}

const calls = {
  async chat() {
    const answer = await chat(asked.more);
    return { text: answer.choices[0].message.content, tokens: tokens(answer) };
  },
  async chat_stream() {
    const stream = await chat({ stream: true, stream_options: { include_usage: true } });
    const [text, last] = await joined(stream, (chunk) => chunk.choices[0]?.delta.content);
    return { text, tokens: tokens(last) };
  },
  async chat_tools() {
    const tools = [{ type: "function", function: { name: "weather", parameters: asked.parameters } }];
    const stream = client.chat.completions.stream({ model: asked.model, messages: asked.messages, tools });
    const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0];
    const [call] = message.tool_calls;
    const result = { role: "tool", tool_call_id: call.id, content: asked.result };
    const answer = await chat({ tools, messages: [...asked.messages, message, result] });
    const { name, arguments: given } = call.function;
    return { finish_reason, call: [name, JSON.parse(given)], text: answer.choices[0].message.content };
  },
  async chat_leave() {
    const stream = await chat({ stream: true });
    for await (const chunk of stream) {
      console.log(JSON.stringify(chunk.choices[0].delta.role));
      await new Promise((told) => process.stdin.once("data", told));
      break; // which aborts the request
    }
    return "left";
  },
  async responses() {
    const answer = await response(asked.more);
    return { text: answer.output_text, tokens: tokens(answer) };
  },
  async responses_stream() {
    const stream = await response({ stream: true });
    const [text, last] = await joined(stream, (event) => (event.type === "response.output_text.delta" ? event.delta : ""));
    return { text, tokens: tokens(last.response) };
  },
  async responses_tools() {
    const tools = [{ type: "function", name: "weather", parameters: asked.parameters, strict: true }];
    const first = await response({ tools });
    const [call] = first.output;
    const result = { type: "function_call_output", call_id: call.call_id, output: asked.result };
    const answer = await response({ tools, input: [...asked.messages, call, result] });
    return { finish_reason: call.type, call: [call.name, JSON.parse(call.arguments)], text: answer.output_text };
  },
  async responses_leave() {
    const stream = await response({ stream: true });
    for await (const event of stream) {
      console.log(JSON.stringify(event.type));
      await new Promise((told) => process.stdin.once("data", told));
      stream.controller.abort();
      break;
    }
    return "left";
  },
};

function told(error) {
  const { status, code, param, message } = error;
  const retryAfter = error.headers?.get("retry-after") ?? null;
  return { kind: error.constructor.name, status: status ?? null, code: code ?? null, param: param ?? null, message, retryAfter };
}

try {
  console.log(JSON.stringify(await calls[asked.call]()));
} catch (error) {
  console.log(JSON.stringify({ error: told(error) }));
}
process.stdin.destroy();
