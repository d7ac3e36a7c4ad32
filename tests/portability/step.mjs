// What onnxruntime-web (WebAssembly) computes of a step graph:
//
//     node step.mjs PACKAGE GRAPH CHARS SHAPES LOGITS
//
// CHARS holds int64 [steps, rows], SHAPES is JSON of the states' [rows, ...]. Writes to LOGITS all logits and the last
// states, float32.
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [name, graph, charsFile, shapesText, logitsFile] = process.argv.slice(2);
const ort = await import(pathToFileURL(name));
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(graph), { executionProviders: ["wasm"] });
const shapes = JSON.parse(shapesText);
const rows = shapes[0][0];
const bytes = readFileSync(charsFile);
const chars = new BigInt64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
let states = shapes.map((shape) => new ort.Tensor("float32", new Float32Array(shape.reduce((a, b) => a * b)), shape));
const output = openSync(logitsFile, "w");
for (let at = 0; at < chars.length; at += rows) {
  const feeds = { char: new ort.Tensor("int64", chars.slice(at, at + rows), [rows]) };
  states.forEach((state, index) => (feeds[`state_${index}`] = state));
  const found = await session.run(feeds);
  states = shapes.map((_, index) => found[`next_state_${index}`]);
  writeSync(output, found.logits.data);
}
states.forEach((state) => writeSync(output, state.data));
closeSync(output);
