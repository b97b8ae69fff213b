'use strict';
// The forward pass of bigramv2.py a third time, in plain JavaScript: tokens in, a guess at each next one out.
//
// Letters as in the Python: T positions, C channels, H heads, D head size (C / H), S positions looked at, V vocabulary.
// There is one text, so B is 1 and left out. A tensor (T, C) is one array, row after row: position t begins at t * C.
// No position sees a later one. So when a character changes, all before it stays as it was: the tensors are kept, and
// only the positions from `past` on are computed again. For writing, this is the cache of bigramv2.py.
// All numbers have 64 bits here, as JavaScript computes in these. The fast products of products.js have 32.

class GPT {
  // sizes: block_size, n_embd, num_heads, num_layers, vocab_size; weights: arrays by the names of the state dict
  constructor(sizes, weights) {
    const { block_size: T, n_embd: C, num_heads: H, num_layers: layers, vocab_size: V } = sizes;
    const make = (count, length) => Array.from({ length: count }, () => new Float64Array(length));
    Object.assign(this, { sizes, weights, V, tokens: [], off: new Set() });  // off: the names of parts that add nothing
    this.x = make(layers + 1, T * C);                       // (T, C) each: the stream before every block and at the end
    [this.keys, this.values] = [make(layers, T * C), make(layers, C * T)];  // (T, C) each, (C, T) each
    this.attention = make(layers, H * T * T);               // (H, T, S) each: where every head looks
    [this.normed, this.query, this.out] = make(3, T * C);   // (T, C), of the part that is computed
    [this.hidden] = make(1, T * 4 * C);                     // (T, 4C)
    [this.logits, this.early] = make(2, T * V);             // (T, V)
  }

  // Tokens (T,) -> logits (T, V)
  forward(tokens) {
    const T = tokens.length, { n_embd: C, num_layers } = this.sizes, x = this.x[0];
    let past = 0;
    while (past < T && tokens[past] === this.tokens[past]) past++;
    this.tokens = tokens.slice();
    const token = this.weights['token_embedding.weight'], position = this.weights['position_embedding.weight'];
    for (let t = past; t < T; t++) {
      for (let c = 0; c < C; c++) x[t * C + c] = token[tokens[t] * C + c] + position[t * C + c];  // (T, C)
    }
    for (let i = 0; i < num_layers; i++) this.block(i, this.x[i], this.x[i + 1], past, T);        // (T, C)
    this.guess(this.x[num_layers], this.logits, past, T);                                         // (T, V)
    return this.logits;
  }

  // The final norm and head, on a stream x (T, C): logits (T, V)
  guess(x, logits, past, T) {
    this.layerNorm('ln', x, this.normed, past, T);
    this.linear('head', this.normed, logits, past, T);
  }

  // The logits (V,) at position t, if the model ended after so many blocks
  after(blocks, t) {
    this.guess(this.x[blocks], this.early, t, t + 1);
    return this.early.subarray(t * this.V, (t + 1) * this.V);
  }

  // Block: attention, then feed-forward, each added to the stream: x (T, C) -> y (T, C)
  block(i, x, y, past, T) {
    const { normed, hidden, out, off, sizes: { n_embd: C } } = this, name = `blocks.${i}`;
    const add = () => { for (let j = past * C; j < T * C; j++) y[j] += out[j]; };
    y.set(x.subarray(past * C, T * C), past * C);
    this.layerNorm(`${name}.ln1`, y, normed, past, T);
    this.attend(i, normed, out, past, T);  // also if it is off: the page shows where it would look
    if (!off.has(`${name}.sa`)) add();
    if (!off.has(`${name}.ffwd`)) {
      this.layerNorm(`${name}.ln2`, y, normed, past, T);
      this.linear(`${name}.ffwd.fc`, normed, hidden, past, T);                              // (T, 4C)
      for (let j = past * 4 * C; j < T * 4 * C; j++) hidden[j] = gelu(hidden[j]);
      this.linear(`${name}.ffwd.proj`, hidden, out, past, T);                               // (T, C)
      add();
    }
  }

  // MultiHeadAttn: x (T, C) -> y (T, C)
  attend(i, x, y, past, T) {
    const { block_size, n_embd: C, num_heads: H } = this.sizes, D = C / H, name = `blocks.${i}.sa`;
    const q = this.query, k = this.keys[i], v = this.values[i];
    this.linear(`${name}.query`, x, q, past, T);
    this.linear(`${name}.key`, x, k, past, T);
    this.linear(`${name}.value`, x, y, past, T);  // in y for a moment
    for (let t = past; t < T; t++) {
      for (let c = 0; c < C; c++) v[c * block_size + t] = y[t * C + c];                     // (T, C) -> (C, T)
    }
    for (let h = 0; h < H; h++) {
      const weights = this.attention[i].subarray(h * block_size * block_size);              // (T, S)
      const from = past * C + h * D, row = past * block_size;
      this.product(T - past, D, T, q, from, C, k, h * D, C, weights, row, block_size);      // (T, D) @ (D, S) -> (T, S)
      for (let t = past; t < T; t++) softmax(weights.subarray(t * block_size, t * block_size + T), t + 1, D ** -0.5);
      // (T, S) @ (S, D) -> (T, D), over x, which is done with
      this.product(T - past, T, D, weights, row, block_size, v, h * D * block_size, block_size, x, from, C);
      if (!this.off.has(`${name}.${h}`)) continue;
      for (let t = past; t < T; t++) x.fill(0, t * C + h * D, t * C + (h + 1) * D);
    }
    this.linear(`${name}.proj`, x, y, past, T);
  }

  // x (T, C) -> y (T, C): each position with mean 0 and variance 1, then the learnt gain and bias
  layerNorm(name, x, y, past, T) {
    const C = this.sizes.n_embd, gain = this.weights[`${name}.weight`], bias = this.weights[`${name}.bias`];
    for (let t = past; t < T; t++) {
      let mean = 0, variance = 0;
      for (let c = 0; c < C; c++) mean += x[t * C + c] / C;
      for (let c = 0; c < C; c++) variance += (x[t * C + c] - mean) ** 2 / C;
      const scale = (variance + 1e-5) ** -0.5;
      for (let c = 0; c < C; c++) y[t * C + c] = (x[t * C + c] - mean) * scale * gain[c] + bias[c];
    }
  }

  // x (T, I) @ weight (O, I), transposed, + bias (O,) -> y (T, O)
  linear(name, x, y, past, T) {
    const weight = this.weights[`${name}.weight`], bias = this.weights[`${name}.bias`];
    const I = x.length / this.sizes.block_size, O = y.length / this.sizes.block_size;
    this.product(T - past, I, O, x, past * I, I, weight, 0, I, y, past * O, O);
    if (bias) for (let j = past * O; j < T * O; j++) y[j] += bias[j % O];
  }

  // x (rows, I) @ w (O, I), transposed -> y (rows, O). Each of the three is part of an array: x begins at xAt, and its
  // rows are xStride apart. Nearly all of the time goes here. So `load` replaces it by the fast product of products.js.
  product(rows, I, O, x, xAt, xStride, w, wAt, wStride, y, yAt, yStride) {
    for (let row = 0; row < rows; row++) {
      for (let o = 0; o < O; o++) {
        const left = xAt + row * xStride, right = wAt + o * wStride;
        let sum = 0;
        for (let i = 0; i < I; i++) sum += x[left + i] * w[right + i];
        y[yAt + row * yStride + o] = sum;
      }
    }
  }

  // One step of GPT.stream: draw the token after the window and append it. A full window goes on from its last
  // half, whose positions start at 0 again.
  write(window, temperature, topK) {
    const T = window.length, { V } = this;
    const logits = this.forward(window).subarray((T - 1) * V, T * V);                       // (V,)
    window.push(draw(probabilities(logits, temperature, topK)));
    const { block_size } = this.sizes, half = Math.floor((block_size + 1) / 2);
    if (window.length > block_size) window.splice(0, window.length - half);
  }

  // Minus the log of the probability of a token after position t, in nats
  surprise(t, token) {
    const logits = this.logits.subarray(t * this.V, (t + 1) * this.V), most = Math.max(...logits);
    return most - logits[token] + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
  }

  // The surprise at each token but the first: (T - 1,). Their mean is the loss.
  surprises(tokens) {
    this.forward(tokens);
    return tokens.slice(1).map((token, t) => this.surprise(t, token));
  }
}

// softmax of the first `count` numbers times scale, in their place; all others are masked
function softmax(numbers, count, scale) {
  let most = -Infinity, sum = 0;
  for (let s = 0; s < count; s++) most = Math.max(most, numbers[s] *= scale);
  for (let s = 0; s < count; s++) sum += numbers[s] = Math.exp(numbers[s] - most);
  for (let s = 0; s < count; s++) numbers[s] /= sum;
  numbers.fill(0, count);
}

// x times the probability that a normal number is below x (Abramowitz and Stegun 1964, 26.2.17, right to 1e-7)
function gelu(x) {
  const z = Math.abs(x), t = 1 / (1 + 0.2316419 * z);
  const above = 0.3989422804 * Math.exp(-z * z / 2)
    * t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return x * (x < 0 ? above : 1 - above);
}

// The tokens from the likeliest to the least likely. Of equals the first comes first; torch may order them otherwise.
function ranking(logits) {
  return Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
}

// softmax of logits (V,) / temperature over the topK likeliest, or all if topK is 0; temperature 0: the likeliest alone
function probabilities(logits, temperature = 1, topK = 0) {
  const zero = temperature < 1e-9, kept = ranking(logits).slice(0, zero ? 1 : topK || logits.length);
  const probs = new Float64Array(logits.length);                                            // (V,)
  for (const token of kept) probs[token] = zero ? 1 : Math.exp((logits[token] - logits[kept[0]]) / temperature);
  const sum = probs.reduce((a, b) => a + b);
  return probs.map(p => p / sum);
}

function draw(probs) {
  let dice = Math.random();
  const token = probs.findIndex(p => (dice -= p) < 0);
  return token < 0 ? probs.indexOf(Math.max(...probs)) : token;  // < 0: rounding left a little of the dice
}

// The model in a page: its sizes, the name and count of each part of its weights, and these in a row as base64
function load({ sizes, parts, weights: base64 }) {
  const letters = atob(base64), bytes = new Uint8Array(letters.length), weights = {};
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  let begin = 0;
  for (const [name, count] of parts) {
    weights[name] = Float64Array.from(new Float32Array(bytes.buffer, begin, count));
    begin += 4 * count;
  }
  const gpt = new GPT(sizes, weights);
  try { gpt.product = fastProduct(sizes, weights); } catch { /* no WebAssembly here: it computes more slowly */ }
  return gpt;
}

// How far the logits are from torch's at some positions of a text: about 1e-5, unless someone changed the model
function difference(gpt, { tokens, positions, logits }) {
  const mine = gpt.forward(tokens);
  const distances = positions.flatMap((t, i) => logits[i].map((logit, v) => Math.abs(logit - mine[t * gpt.V + v])));
  return distances.reduce((most, distance) => Math.max(most, distance));
}

if (typeof module !== 'undefined') module.exports = { GPT, load, difference, probabilities };
