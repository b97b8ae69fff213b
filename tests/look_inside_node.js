'use strict';
// Run the forward pass of a page of experiments/look_inside.py: node tests/look_inside_node.js page.html < jobs.json
// With `plain` behind page.html, it uses the plain product in place of the fast one.
// A job has tokens, and may have a count of characters to write at temperature 0, and parts to switch off.
const fs = require('fs');

const html = fs.readFileSync(process.argv[2], 'utf8');
const [facts, forward, ...rest] = [...html.matchAll(/<script.*?>(.*?)<\/script>/gs)].map(match => match[1]);
const page = { exports: {} };
new Function('module', forward)(page);
const { load, difference, probabilities } = page.exports;

const model = load(JSON.parse(facts)), fast = Object.hasOwn(model, 'product');
if (process.argv[3] === 'plain') delete model.product;
const answers = JSON.parse(fs.readFileSync(0, 'utf8')).map(({ tokens, count = 0, off = [], temperature, topK }) => {
  if (off.join() !== [...model.off].join()) [model.off, model.tokens] = [new Set(off), []];
  const logits = Array.from(model.forward(tokens).subarray(0, tokens.length * model.V));
  const attention = model.attention.flatMap(heads => {  // (layers * H, T, T)
    const { block_size: T, num_heads: H } = model.sizes;
    const row = begin => Array.from(heads.subarray(begin, begin + tokens.length));
    return Array.from({ length: H }, (_, h) => tokens.map((_, t) => row((h * T + t) * T)));
  });
  const probs = Array.from(probabilities(logits.slice(-model.V), temperature, topK));
  const written = Array.from({ length: count }, () => (model.write(tokens, 0, 0), tokens.at(-1)));
  return { logits, probs, written, attention };
});
const apart = difference(model, JSON.parse(facts).torch);
const { vocab } = JSON.parse(facts);
process.stdout.write(JSON.stringify({ answers, apart, fast, vocab, scripts: 2 + rest.length }));
