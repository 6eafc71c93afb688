// OpenAI's SDK for Node as a client: for each line of JSON that it reads it makes one of the calls below, and prints what
// came of it as one line of JSON. The argument is the folder with the installed package.
//
// echo '{"call": "chat", "origin": "http://127.0.0.1:4000", "key": "", "model": "support", "messages": []}' |
//   node client.mjs FOLDER

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { default: OpenAI } = createRequire(`${process.argv[2]}/`)("openai");
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const print = (value) => console.log(JSON.stringify(value));
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

class Calls {
  constructor(asked) {
    this.asked = asked;
    const options = { apiKey: asked.key, maxRetries: asked.retries ?? 0, timeout: 5000 };
    this.client = new OpenAI({ baseURL: `${asked.origin}/v1`, ...options });
  }
  ask_chat(more) {
    const { model, messages } = this.asked;
    return this.client.chat.completions.create({ model, messages, ...more });
  }
  ask_responses(more) {
    const { model, messages } = this.asked;
    return this.client.responses.create({ model, input: messages, ...more });
  }

  async chat() {
    const answer = await this.ask_chat(this.asked.more);
    return { text: answer.choices[0].message.content, tokens: tokens(answer) };
  }
  async chat_stream() {
    const stream = await this.ask_chat({ stream: true, stream_options: { include_usage: true } });
    const [text, last] = await joined(stream, (chunk) => chunk.choices[0]?.delta.content);
    return { text, tokens: tokens(last) };
  }
  async chat_tools() {
    const { model, messages, parameters, result: content } = this.asked;
    const tools = [{ type: "function", function: { name: "weather", parameters } }];
    const stream = this.client.chat.completions.stream({ model, messages, tools });
    const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0];
    const [call] = message.tool_calls;
    const result = { role: "tool", tool_call_id: call.id, content };
    const answer = await this.ask_chat({ tools, messages: [...messages, message, result] });
    const { name, arguments: given } = call.function;
    return { finish_reason, call: [name, JSON.parse(given)], text: answer.choices[0].message.content };
  }
  async chat_leave() {
    for await (const chunk of await this.ask_chat({ stream: true })) {
      print(chunk.choices[0].delta.role);
      await lines.next();
      break; // which aborts the request
    }
    return "left";
  }

  async responses() {
    const answer = await this.ask_responses(this.asked.more);
    return { text: answer.output_text, tokens: tokens(answer) };
  }
  async responses_stream() {
    const stream = await this.ask_responses({ stream: true });
    const [text, last] = await joined(stream, (event) => (event.type === "response.output_text.delta" ? event.delta : ""));
    return { text, tokens: tokens(last.response) };
  }
  async responses_tools() {
    const { messages, parameters, result: output } = this.asked;
    const tools = [{ type: "function", name: "weather", parameters, strict: true }];
    const [call] = (await this.ask_responses({ tools })).output;
    const result = { type: "function_call_output", call_id: call.call_id, output };
    const answer = await this.ask_responses({ tools, input: [...messages, call, result] });
    return { finish_reason: call.type, call: [call.name, JSON.parse(call.arguments)], text: answer.output_text };
  }
  async responses_leave() {
    const stream = await this.ask_responses({ stream: true });
    for await (const event of stream) {
      print(event.type);
      await lines.next();
      stream.controller.abort();
      break;
    }
    return "left";
  }
}

function told({ constructor, status, code, param, message, headers }) {
  return { kind: constructor.name, status, code, param, message, retryAfter: headers?.get("retry-after") ?? null };
}

for (let line = await lines.next(); !line.done; line = await lines.next()) {
  const asked = JSON.parse(line.value);
  try {
    print(await new Calls(asked)[asked.call]());
  } catch (error) {
    print({ error: told(error) });
  }
}
