'use strict';
// GPT.product of forward.js again, about ten times as fast for many positions. It says nothing new about GPT: skip it.
//
// A processor can multiply four numbers of 32 bits by four others at once. JavaScript cannot ask for that, but
// WebAssembly can, the machine language of browsers. So one small function is written in it. It computes a tile of the
// product: eight outputs at one position or at four. The numbers lie in its memory in the order in which it reads them.

// The bytes of a WebAssembly module with the function tile(x, w, y, I). x, w and y are addresses. x (I, rows) and
// w (I, 8) are read, and y (rows, 8) is written: the sum over all I of x times w.
function tileModule(rows) {
  const [x, w, y, I, low, high, number, sums] = [0, 1, 2, 3, 4, 5, 6, 7];    // its variables; there are 2 * rows sums
  const get = variable => [0x20, variable], set = variable => [0x21, variable];
  const load = (from, at) => [...get(from), 0xfd, 0, 2, at], copies = (from, at) => [...get(from), 0xfd, 9, 2, at];
  const add = (variable, count) => [...get(variable), 0x41, count, 0x6a, ...set(variable)];
  const each = action => Array.from({ length: 2 * rows }, (_, sum) => action(sum + sums, sum >> 1, sum % 2)).flat();
  const code = [
    0x03, 0x40,                                                              // loop over the inputs:
    ...load(w, 0), ...set(low), ...load(w, 16), ...set(high),                // low, high = eight weights
    ...each((sum, row, half) => [
      ...half ? [] : [...copies(x, 4 * row), ...set(number)],                // number = x of the row, four times
      ...get(sum), ...get(number), ...get(half ? high : low), 0xfd, 0xe6, 1, 0xfd, 0xe4, 1,  // sum + number * weights
      ...set(sum)]),
    ...add(x, 4 * rows), ...add(w, 32),
    ...get(I), 0x41, 1, 0x6b, 0x22, I, 0x0d, 0, 0x0b,                        // I = I - 1, and again if it is not 0
    ...each((sum, row, half) => [...get(y), ...get(sum), 0xfd, 11, 2, 32 * row + 16 * half]),
    0x0b];
  const section = (id, ...content) => [id, ...size(content.length), ...content];
  const locals = [1, 3 + 2 * rows, 0x7b], body = [...locals, ...code];       // 0x7b: four numbers; 0x7f: a whole one
  return Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,                      // "\0asm", version 1
    ...section(1, 1, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 0),                    // one type: four whole numbers -> nothing
    ...section(2, 1, 1, 0x65, 1, 0x6d, 2, 0, 1),                             // its memory is e.m, from outside
    ...section(3, 1, 0),                                                     // one function of type 0,
    ...section(7, 1, 1, 0x74, 0, 0),                                         // which is called t outside
    ...section(10, 1, ...size(body.length), ...body));
}

// A count as WebAssembly writes it: seven bits in each byte
function size(count) {
  return count < 128 ? [count] : [count % 128 + 128, ...size(count >> 7)];
}

// A function that does what GPT.product does. It throws where there is no WebAssembly.
function fastProduct({ block_size, n_embd, vocab_size }, weights) {
  const memory = new WebAssembly.Memory({ initial: 1 }), constant = new Set(Object.values(weights)), packed = new Map();
  const [tile1, tile4] = [1, 4].map(rows =>
    new WebAssembly.Instance(new WebAssembly.Module(tileModule(rows)), { e: { m: memory } }).exports.t);
  const T = block_size + 8, most = Math.max(4 * n_embd, vocab_size, block_size) + 8;
  let numbers, used = 0;
  const xPlace = take(T * most), yPlace = take(T * most), wPlace = take(T * (n_embd + 8));

  function take(count) {  // room for so many numbers: the place of the first
    used += count;
    memory.grow(Math.max(0, Math.ceil((4 * used - memory.buffer.byteLength) / 65536)));
    numbers = new Float32Array(memory.buffer);
    return used - count;
  }

  function pack(w, wAt, wStride, I, O, place) {                              // (O, I) -> (O / 8, I, 8)
    for (let o = 0; o < O; o++) {
      for (let i = 0, at = place + (o - o % 8) * I + o % 8; i < I; i++, at += 8) numbers[at] = w[wAt + o * wStride + i];
    }
    return place;
  }

  return (rows, I, O, x, xAt, xStride, w, wAt, wStride, y, yAt, yStride) => {
    if (rows === 1 && !constant.has(w)) {  // packing would take longer than it saves
      GPT.prototype.product(rows, I, O, x, xAt, xStride, w, wAt, wStride, y, yAt, yStride);
      return;
    }
    if (constant.has(w) && !packed.has(w)) packed.set(w, pack(w, wAt, wStride, I, O, take((O + 7) * I)));
    const wBegin = packed.get(w) ?? pack(w, wAt, wStride, I, O, wPlace);
    const [R, tile] = rows === 1 ? [1, tile1] : [4, tile4], filled = Math.ceil(rows / R) * R;
    for (let row = 0; row < rows; row++) {                                   // (rows, I) -> (rows / R, I, R)
      let to = xPlace + (row - row % R) * I + row % R, from = xAt + row * xStride;
      for (let i = 0; i < I; i++, to += R) numbers[to] = x[from + i];
    }
    for (let o = 0; o < O; o += 8) {                                         // -> (O / 8, rows, 8)
      for (let row = 0; row < filled; row += R) {
        tile(4 * (xPlace + row * I), 4 * (wBegin + o * I), 4 * (yPlace + o * filled + 8 * row), I);
      }
    }
    for (let row = 0; row < rows; row++) {                                   // -> (rows, O)
      for (let o = 0; o < O; o++) {
        y[yAt + row * yStride + o] = numbers[yPlace + (o - o % 8) * filled + 8 * row + o % 8];
      }
    }
  };
}
