// The pages of `checker serve` as people meet them: in a real Chromium, over a real server whose checks fail and recover.
//
// What the server sends is tested in Rust (`checker/tests/serve_page.rs`); here is what becomes of it: live, in both colour
// schemes, on a phone, with the keyboard, without JavaScript, and as valid, accessible HTML.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(join(process.env.TESTS_NODE, 'package.json'));
const { chromium } = require('playwright-core');
const { HtmlValidate } = require('html-validate');
const axe = await readFile(require.resolve('axe-core/axe.min.js'), 'utf8');

const SOON = 20_000;

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

const CONFIGURATION = `
[service]
name = "orders <b>&"
[server]
detail = "safe"
durations = true
cache = "1ms"
drain = "0s"
[subsets]
readiness = ["files"]
integrations = ["@readiness", "mail", "a-very-long-name.that_does-not-break.anywhere-and-goes-on-for-a"]
[checks.files]
type = "command"
command = ["test", "-e", "there"]
[checks.mail]
type = "tcp"
address = "127.0.0.1:1"
critical = false
[checks.a-very-long-name.that_does-not-break.anywhere-and-goes-on-for-a]
type = "command"
command = ["true"]
[checks.idle]
type = "command"
command = ["true"]
`.replace('[checks.a-very', '[checks."a-very').replace('goes-on-for-a]\n', 'goes-on-for-a"]\n');

let folder, server, address, browser;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'checker-pages-'));
  await writeFile(join(folder, 'checker.toml'), CONFIGURATION);
  await start('127.0.0.1:0');
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: FLAGS });
});

after(async () => {
  await browser?.close();
  await stop();
  await rm(folder, { recursive: true, force: true });
});

async function start(listen) {
  ({ server, address } = await serve(folder, listen));
}

async function serve(folder, listen) {
  const server = spawn(process.env.CHECKER_BIN, ['serve', '--listen', listen], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  server.stderr.on('data', (part) => { log += part; });
  const address = await until('the server listens', () => /listening.*(http:\/\/127[0-9.:]+)/.exec(log)?.[1]);
  return { server, address };
}

const stop = () => end(server);

async function end(program) {
  if (program.exitCode !== null || program.signalCode !== null) return;
  const ended = new Promise((ended) => { program.once('exit', ended); });
  program.kill('SIGKILL');
  await ended;
}

async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  await new Promise((closed) => { probe.close(closed); });
  return port;
}

async function until(what, fact) {
  for (const end = Date.now() + SOON; Date.now() < end; await sleep(20)) {
    const found = await fact();
    if (found) return found;
  }
  assert.fail(`not within ${SOON} ms: ${what}`);
}

const files = (there) => (there ? writeFile(join(folder, 'there'), '') : rm(join(folder, 'there'), { force: true }));

/** Asks the checks, as a probe does. */
const probe = async (subset = 'integrations') => (await fetch(`${address}/healthcheck/${subset}`)).status;

/** A page in a context of its own, which must end without a message on its console. */
async function open(context, settings, path = '/', at = address) {
  const within = await browser.newContext({ viewport: { width: 1180, height: 900 }, ...settings });
  context.after(() => within.close());
  const page = await within.newPage();
  page.messages = [];
  page.on('console', (message) => page.messages.push(message.text()));
  page.on('pageerror', (error) => page.messages.push(String(error)));
  page.outside = [];
  page.on('request', (request) => { if (!/^(data:|http:\/\/127\.)/.test(request.url())) page.outside.push(request.url()); });
  await page.goto(at + path);
  return page;
}

const state = (page, name) => page.locator(`[id="check-${name}"] .state`);
const text = (locator, wanted) => until(`${locator} says ${wanted}`, async () => (await locator.innerText()).includes(wanted));

test('a check fails and recovers before the eyes of the reader, without a reload and without a message', async (context) => {
  await files(true);
  await probe();
  const page = await open(context, {});
  await text(page.locator('#connection'), 'Live');
  await page.evaluate(() => { window.loadedOnce = true; });
  await text(state(page, 'files'), 'ok');
  await files(false);
  await probe();
  await text(state(page, 'files'), 'fail');
  await text(page.locator('[role=status].verdict'), '1 of 4 checks does not pass');
  await text(page.locator('[id="check-files"]'), 'the program ended with status 1');
  assert.equal(await page.title(), '1 of 4 checks does not pass');
  const red = await page.locator('link[rel=icon]').getAttribute('href');
  await files(true);
  await probe();
  await text(state(page, 'files'), 'ok');
  await text(page.locator('ol.changes li').first(), 'fail →');
  assert.notEqual(await page.locator('link[rel=icon]').getAttribute('href'), red);
  assert.match(await page.locator('[id="check-files"] .since time').innerText(), /^\d+ s ago$/);
  assert.match(await page.locator('[id="check-files"] svg').getAttribute('aria-label'), /runs: \d+ ok, 1 fail/);
  assert.equal(await page.evaluate(() => window.loadedOnce), true);
  assert.deepEqual([page.messages, page.outside], [[], []]);
});

test('what the reader has focused stays focused while the page changes', async (context) => {
  const page = await open(context, {});
  await text(page.locator('#connection'), 'Live');
  await page.keyboard.press('Tab');
  const focused = () => page.evaluate(() => document.activeElement.id);
  assert.equal(await focused(), 'subset-readiness');
  await page.keyboard.press('Tab');
  assert.equal(await focused(), 'subset-integrations');
  const runs = () => page.locator('[id="check-files"] svg').getAttribute('aria-label');
  const before = await runs();
  await files(false);
  await probe();
  await until('the page has changed', async () => (await runs()) !== before);
  assert.equal(await focused(), 'subset-integrations');
  await page.keyboard.press('Enter');
  await page.waitForURL(/healthcheck\/integrations\?format=html$/);
  await text(page.locator('.verdict'), 'integrations: fail');
});

test('a server that has gone is told, and one that is back is followed again', async (context) => {
  const page = await open(context, {});
  await text(page.locator('#connection'), 'Live');
  const same = address.replace('http://', '');
  await stop();
  await text(page.locator('#connection'), 'Connection lost');
  await start(same);
  await text(page.locator('#connection'), 'Live');
});

test('a server that says nothing any more is told though its connection stays, and followed again once it is back', async (context) => {
  const page = await open(context, {});
  await text(page.locator('#connection'), 'Live');
  await page.clock.install();
  await page.reload();
  await text(page.locator('#connection'), 'Live');
  // Nothing changes, and signs of life are enough.
  await page.clock.runFor(10_000);
  assert.equal(await page.locator('#connection').innerText(), 'Live');
  server.kill('SIGSTOP');
  try {
    await page.clock.runFor(13_000);
    await text(page.locator('#connection'), 'Connection lost');
    // The next stream hangs as well, and is not waited for either.
    await page.clock.runFor(60_000);
    await text(page.locator('#connection'), 'Connection lost');
  } finally {
    server.kill('SIGCONT');
  }
  await text(page.locator('#connection'), 'Live');
  await files(false);
  await probe();
  await text(state(page, 'files'), 'fail');
  assert.deepEqual(page.messages, []);
});

for (const colorScheme of ['light', 'dark']) {
  test(`axe finds nothing in ${colorScheme}, at a desk and on a phone`, async (context) => {
    await files(false);
    await probe();
    for (const viewport of [{ width: 1180, height: 900 }, { width: 320, height: 640 }]) {
      for (const path of ['/', '/healthcheck/integrations?format=html']) {
        const page = await open(context, { colorScheme, viewport, reducedMotion: 'reduce' }, path);
        // Its policy lets no script in, so axe comes by the debugger.
        await page.evaluate(axe);
        const found = await page.evaluate(() => window.axe.run(document));
        assert.ok(found.passes.length > 15, 'axe has looked at something');
        assert.ok(found.passes.some(({ id }) => id === 'color-contrast'), 'contrast was measured');
        assert.deepEqual(found.violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], path);
        const [content, width] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
        assert.ok(content <= width, `${path}: ${content} px of content in ${width} px`);
      }
    }
  });
}

test('without JavaScript it is whole and loads itself anew', async (context) => {
  await files(true);
  await probe();
  const page = await open(context, { javaScriptEnabled: false });
  await text(state(page, 'files'), 'ok');
  assert.match(await page.locator('#connection').innerText(), /^As of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$/);
  assert.equal(await page.locator('meta[http-equiv=refresh]').getAttribute('content'), '10');
  await files(false);
  await probe();
  await text(state(page, 'files'), 'fail');
});

test('where no stream is to be had the page is loaded now and then', async (context) => {
  await files(true);
  await probe();
  const streams = [];
  context.after(() => streams.forEach((stream) => stream.abort()));
  await until('there is no place left', async () => {
    const stream = new AbortController();
    streams.push(stream);
    const answer = await fetch(address, { headers: { accept: 'text/event-stream' }, signal: stream.signal });
    return answer.status === 503;
  });
  const page = await open(context, {});
  await text(page.locator('#connection'), 'Loaded anew');
  assert.ok(await state(page, 'files').isVisible());
});

test('a worker goes from alive to wedged before the eyes of the reader', async (context) => {
  const place = await mkdtemp(join(tmpdir(), 'checker-pages-fleet-'));
  const programs = [];
  context.after(async () => {
    await Promise.all(programs.map(end));
    await rm(place, { recursive: true, force: true });
  });
  const port = await freePort();
  const redis = `redis://127.0.0.1:${port}/0`;
  programs.push(spawn('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--dir', place], { stdio: 'ignore' }));
  const worker = (name, ...more) => {
    const options = ['--cluster', 'orders', '--worker', name, '--interval', '200ms', '--loop-budget', '2s', ...more];
    const program = spawn(process.env.CHECKER_BIN, ['demo-worker', '--file', join(place, name), ...options], {
      env: { ...process.env, HEARTBEAT_REDIS_URL: redis }, stdio: ['pipe', 'ignore', 'ignore'],
    });
    programs.push(program);
    return program;
  };
  const breaks = worker('web-1', '--queue', 'mail', '--queue', 'images');
  worker('web-2', '--queue', 'mail');
  breaks.stdin.write('task 60s 90s\n');
  await writeFile(join(place, 'checker.toml'), `[server]\ndetail = "full"\n[subsets]\nreadiness = ["fleet"]\n[checks.fleet]\ntype = "cluster"\ncluster = "orders"\nredis = "${redis}"\nmin = 2\n`);
  const { server, address } = await serve(place, '127.0.0.1:0');
  programs.push(server);
  const page = await open(context, {}, '/', address);
  await text(page.locator('#connection'), 'Live');
  const rows = (name) => page.locator('table[aria-labelledby=workers-fleet] tr', { hasText: name });
  await until('both beat', async () => (await rows('web-1').count()) === 2 && (await rows('web-2').count()) === 1);
  const queues = () => page.locator('th[scope=rowgroup] b').allInnerTexts();
  assert.deepEqual(await queues(), ['images', 'mail']);
  await text(rows('web-1').first(), 'alive');
  await until('its task has a deadline', async () => /in (1|\d\d) (min|s)/.test(await rows('web-1').first().innerText()));
  breaks.stdin.write('wedge\n');
  await text(rows('web-1').first(), 'wedged');
  await text(rows('web-2').first(), 'alive');
  await page.evaluate(axe);
  assert.deepEqual((await page.evaluate(() => window.axe.run(document))).violations.map(({ id }) => id), []);
  const scroll = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(scroll[0] <= scroll[1]);
  assert.deepEqual(page.messages, []);
  // With less detail there are numbers in the place of names.
  const full = await readFile(join(place, 'checker.toml'), 'utf8');
  await writeFile(join(place, 'checker.toml'), full.replace('"full"', '"safe"'));
  await text(page.locator('table[aria-labelledby=workers-fleet] tr', { hasText: 'mail' }), '1 wedged');
  assert.deepEqual(await page.locator('table[aria-labelledby=workers-fleet] th[scope=row]').allInnerTexts(), ['images 1', 'mail 2']);
  const shown = await page.locator('main').innerHTML();
  for (const hidden of ['web-1', 'web-2', 'long job', 'hash a piece']) assert.ok(!shown.includes(hidden), hidden);
  await page.evaluate(axe);
  assert.deepEqual((await page.evaluate(() => window.axe.run(document))).violations.map(({ id }) => id), []);
  // Whether there is Redis or not, the page is there at once.
  await end(programs[0]);
  await text(page.locator('.note'), 'unknown');
});

test('every page is valid HTML', async () => {
  const valid = new HtmlValidate({
    extends: ['html-validate:recommended', 'html-validate:document', 'html-validate:a11y'],
    rules: {
      // Written by a machine for machines: nobody reads its spaces, and void elements end as maud ends them.
      'long-title': 'off',
      'no-trailing-whitespace': 'off',
      'no-inline-style': 'error',
      // A check's name may hold a full stop.
      'valid-id': ['error', { relaxed: true }],
      // A narrow page lays its table out anew, and browsers forget the roles then.
      'no-redundant-role': 'off',
      'prefer-native-element': 'off',
      'doctype-style': 'off',
      // Where no script does better.
      'meta-refresh': 'off',
      // They come from the server's own file, allowed by their hashes.
      'require-sri': 'off',
      'require-csp-nonce': 'off',
    },
  });
  for (const path of ['/', '/readyz?format=html', '/healthcheck/liveness?format=html']) {
    const html = await (await fetch(address + path)).text();
    const report = await valid.validateString(html);
    const told = report.results.flatMap(({ messages }) => messages.map(({ ruleId, message, line, column }) => `${ruleId} ${line}:${column} ${message}`));
    assert.deepEqual(told, [], path);
  }
});
