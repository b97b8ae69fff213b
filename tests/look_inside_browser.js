'use strict';
// Use a page of experiments/look_inside.py as a learner would, in Chromium without a window, and print what is seen:
// node tests/look_inside_browser.js out/1/model.html pictures          leaves pictures in that folder
// node tests/look_inside_browser.js out/1/model.html pictures time     tells how fast the page is, in place of all that
// node tests/look_inside_browser.js out/1/model.html experiments/results readme     draws look_inside.png of the README
// Chromium is driven over a pipe, by its DevTools protocol.
const { spawn } = require('child_process');
const fs = require('fs');
const os = require('os');
const path = require('path');

const [page, pictures] = process.argv.slice(2, 4).map(name => path.resolve(name));
const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'look_inside-'));
const browser = spawn(process.env.CHROMIUM || 'chromium', [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--hide-scrollbars', `--user-data-dir=${profile}`,
  '--remote-debugging-pipe', 'about:blank'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });

const waiting = new Map(), errors = [], requests = [];
let count = 0, session, received = '';
browser.stdio[4].setEncoding('utf8').on('data', data => {
  const messages = (received += data).split('\0');
  received = messages.pop();
  for (const { id, method, params, result, error } of messages.map(JSON.parse)) {
    if (id) waiting.get(id)(error ? Promise.reject(new Error(error.message)) : result);
    if (method === 'Runtime.exceptionThrown') errors.push(params.exceptionDetails.exception?.description);
    if (method === 'Log.entryAdded') errors.push(params.entry.text);
    if (method === 'Network.requestWillBeSent') requests.push(params.request.url);
  }
});

function send(method, params = {}) {
  browser.stdio[3].write(JSON.stringify({ id: ++count, sessionId: session, method, params }) + '\0');
  return new Promise(resolve => waiting.set(count, resolve));
}

async function evaluate(expression) {
  const asked = { expression, awaitPromise: true, returnByValue: true };
  const { result, exceptionDetails } = await send('Runtime.evaluate', asked);
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description || exceptionDetails.text);
  return result.value;
}

const text = selector => evaluate(`document.querySelector('${selector}').textContent`);
const value = () => evaluate('document.querySelector("#text").value');
const focus = selector => evaluate(`document.querySelector('${selector}').focus()`);
const painted = () => evaluate('new Promise(done => requestAnimationFrame(() => setTimeout(done)))');
const window = (width, height) =>
  send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 500 });

async function press(...names) {
  const codes = { ArrowLeft: 37, ArrowRight: 39, Home: 36, End: 35, Enter: 13 };
  for (const key of names) {
    const event = { key, code: key, windowsVirtualKeyCode: codes[key] };
    await send('Input.dispatchKeyEvent', { type: 'keyDown', ...event, text: key === 'Enter' ? '\r' : '' });
    await send('Input.dispatchKeyEvent', { type: 'keyUp', ...event });
  }
}

async function mouse(selector, ...types) {
  const { x, y, width, height } = await evaluate(`(element => {
    element.scrollIntoView({ block: 'center' });
    return element.getBoundingClientRect().toJSON();
  })(document.querySelector('${selector}'))`);
  const event = { x: x + width / 2, y: y + height / 2, clickCount: 1 };
  await send('Input.dispatchMouseEvent', { type: 'mouseMoved', ...event });
  for (const type of types) await send('Input.dispatchMouseEvent', { type, button: 'left', ...event });
}
const point = selector => mouse(selector);
const click = selector => mouse(selector, 'mousePressed', 'mouseReleased');

async function type(characters) {
  await evaluate('document.querySelector("#text").select()');
  await (characters ? send('Input.insertText', { text: characters }) : evaluate('document.execCommand("delete")'));
  await painted();
}

async function picture(name, { width = 1280, scheme = 'light', of = 'html', wide = width } = {}) {
  await window(width, 900);
  await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  await painted();
  const clip = await evaluate(`document.querySelector('${of}').getBoundingClientRect().toJSON()`);
  clip.y += await evaluate('scrollY');
  clip.scale = wide / clip.width;
  const { data } = await send('Page.captureScreenshot', { captureBeyondViewport: true, clip });
  fs.writeFileSync(path.join(pictures, `${name}.png`), Buffer.from(data, 'base64'));
  return evaluate('document.documentElement.scrollWidth');  // more than the width if something sticks out
}

const place = length => click(`#text-strip span:nth-of-type(${Math.floor(length * 0.78) + 1})`);

// Two cards, as wide as a README but with twice as many dots, and the head that looks most at the beginnings of words
async function readme() {
  await place((await value()).length);
  const head = await evaluate(`(shares => shares.indexOf(Math.max(...shares)))(
    facts.looks.shares.slice(1).map(groups => groups["words' first letters"]))`);
  await click(`#heads button:nth-child(${head + 1})`);
  await point('h1');
  await evaluate(`for (const card of document.querySelectorAll('section'))
    card.hidden = !card.querySelector('#bars, #heads')`);
  await picture('look_inside', { width: 901, of: 'main', wide: 1660 });
}

// Point, choose, type, slide, switch off and write
async function use() {
  const bars = () => evaluate(
    '[...document.querySelectorAll("#bars tr:not([hidden]) .bar")].map(bar => +bar.style.getPropertyValue("--share"))');
  const seen = { widths: [] }, given = await value();

  await place(given.length);
  await click('#heads button');
  seen.first = await text('#looks');
  await click('#general tr:last-child');
  seen.general = [await text('#general tr + tr'), await text('#general .chosen')];
  await point('h1');
  for (const width of [400, 1280]) {
    for (const scheme of ['dark', 'light']) seen.widths.push(await picture(`${width}-${scheme}`, { width, scheme }));
  }

  await type(given + given.slice(0, 5));
  seen.typed = { value: await value(), cells: await text('#text-strip'), loss: await text('#loss') };
  seen.where = [await text('#where')];
  await point('#text-strip span');
  seen.where.push(await text('#where'));
  await point('h1');
  seen.where.push(await text('#where'));
  await click('#head-strip span:nth-of-type(4)');
  await press('ArrowRight', 'ArrowRight', 'ArrowLeft');
  seen.where.push(await text('#where'));
  seen.looks = await text('#looks');
  seen.last = await text('#depths > tr:last-child td:last-child');

  await focus('#temperature');
  await press('Home');
  seen.cold = await bars();
  await press('End');
  seen.hot = await bars();
  seen.reached = await text('.reached');
  await focus('#top_k');
  await press('Home', 'ArrowRight', 'ArrowRight', 'ArrowRight');
  seen.three = await bars();

  await click('#parts label');
  seen.off = await text('#change');
  await picture('off');
  await click('#parts label');
  seen.on = await text('#change');

  await focus('#temperature');
  await press('Home');
  await type(given);
  await focus('#one');
  await press('Enter');
  seen.one = { value: await value(), where: await text('#where'), comes: await text('#bars .comes') };
  await click('#on');
  while ((await value()).length < given.length + 100) await painted();
  await click('#on');
  seen.written = await value();
  await picture('written');

  await type('');
  seen.empty = await text('#loss');
  await click('#one');
  seen.fromNothing = await value();
  await type('</script><script>alert(1)</script><b>&lt;\u{10fffd}');
  seen.unknown = await text('#window');
  seen.scripts = await evaluate('document.scripts.length');
  return seen;
}

// Milliseconds from a change of the first of block_size characters until all is computed, and until it is painted; and
// characters written in a second
async function time() {
  await type(await evaluate('Array.from({ length: block_size }, (_, t) => vocab[t * 7 % V]).join("")'));
  const times = await evaluate(`(async () => {
    const field = document.querySelector('#text'), times = [];
    for (let i = 0; i < 40; i++) {
      field.focus();
      field.setSelectionRange(0, 1);
      const loss = document.querySelector('#loss'), old = loss.textContent, begun = performance.now();
      document.execCommand('insertText', false, vocab[V - 1 - i % 2]);
      const computed = performance.now() - begun;
      if (loss.textContent === old) throw new Error('the loss is still the old one');
      await new Promise(done => requestAnimationFrame(() => {  // a message comes right after this frame is painted
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = done;
        port2.postMessage(0);
      }));
      times.push({ computed, painted: performance.now() - begun });
      await new Promise(done => setTimeout(done, 20));
    }
    return times.slice(10);
  })()`);
  const median = name => +times.map(time => time[name]).sort((a, b) => a - b)[times.length >> 1].toFixed(1);
  const written = () => evaluate(
    'new Promise(done => requestAnimationFrame(() => done([performance.now(), before.length + seen.length])))');
  await click('#on');
  const begun = await written();
  await new Promise(done => setTimeout(done, 5000));
  const ended = await written();
  await click('#on');
  return { computed: median('computed'), painted: median('painted'),
    charactersPerSecond: Math.round(1000 * (ended[1] - begun[1]) / (ended[0] - begun[0])) };
}

async function main() {
  fs.mkdirSync(pictures, { recursive: true });
  const { targetInfos } = await send('Target.getTargets');
  const { targetId } = targetInfos.find(target => target.type === 'page');
  session = (await send('Target.attachToTarget', { targetId, flatten: true })).sessionId;
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await send(`${domain}.enable`);
  await window(1280, 900);
  await send('Page.navigate', { url: `file://${page}` });
  while (!await evaluate('document.readyState === "complete" && location.protocol === "file:"')) await painted();
  const opened = { about: await text('#about'), warning: await text('#warning') };
  opened.hidden = await evaluate('document.querySelector("main").hidden');
  if (opened.warning) await picture('warning');
  const seen = opened.warning ? {} : await ({ time, readme }[process.argv[4]] ?? use)();
  console.log(JSON.stringify({ ...opened, ...seen, errors, requests }, null, 1));
}

const limit = setTimeout(() => browser.kill('SIGKILL'), 60_000);
browser.on('exit', () => {
  clearTimeout(limit);
  fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
});
browser.on('error', error => { throw error; });
main().catch(error => {
  console.error(error.stack);
  process.exitCode = 1;
}).finally(() => browser.kill());
