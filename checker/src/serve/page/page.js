'use strict';
// Keeps the page as the server would draw it now: it sends the whole of <main> where something has changed, and only what
// differs is touched, so that focus, selection and scroll stay. Without this, the page is complete and loads itself anew.
(() => {
  const main = document.querySelector('main');
  const connection = document.getElementById('connection');
  const icon = document.querySelector('link[rel=icon]');
  let ahead = Date.now() - Number(document.body.dataset.now);
  // A stream that says nothing for so long is dead, though nobody may ever say so: the other end is gone, or this one slept.
  const patience = 2.5 * Number(document.body.dataset.sign);

  const span = (seconds) => {
    const [size, word] = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']].find(([least]) => seconds >= least) ?? [1, 's'];
    return `${Math.floor(seconds / size)} ${word}`;
  };

  // Times come as such; how long ago that is, is told here, by the server's clock.
  const tick = () => {
    for (const time of document.querySelectorAll('time')) {
      const at = Date.parse(time.dateTime);
      const seconds = Math.round((Date.now() - ahead - at) / 1000);
      const text = seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
      if (time.textContent !== text) time.textContent = text;
      if (!time.title) time.title = new Date(at).toLocaleString();
    }
  };

  const alike = (one, other) => one && one.nodeName === other.nodeName && one.id === other.id;

  const attributes = (old, fresh) => {
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  };

  const become = (old, fresh) => {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    attributes(old, fresh);
    if (old.localName === 'time') return;
    const children = [...fresh.childNodes];
    children.forEach((child, at) => {
      const there = old.childNodes[at];
      if (alike(there, child)) become(there, child);
      else if (there) there.replaceWith(child);
      else old.append(child);
    });
    while (old.childNodes.length > children.length) old.lastChild.remove();
  };

  const show = (html) => {
    const fresh = new DOMParser().parseFromString(html, 'text/html').querySelector('main');
    if (!fresh) throw new Error('not the page');
    become(main, fresh);
    document.title = main.dataset.title;
    if (icon.getAttribute('href') !== main.dataset.icon) icon.setAttribute('href', main.dataset.icon);
    tick();
  };

  const say = (text) => {
    if (connection.textContent !== text) connection.textContent = text;
  };

  const lost = () => say('Connection lost: this may be out of date');

  // Where no stream can be had, because there are too many or something on the way holds them back.
  const poll = async () => {
    try {
      const answer = await fetch(location.href, { headers: { accept: 'text/html' } });
      if (!answer.ok) throw new Error(answer.status);
      show(await answer.text());
      say('Loaded anew every 10 seconds');
    } catch {
      lost();
    }
    setTimeout(follow, 10000);
  };

  const follow = () => {
    // The same address answers with a stream where one is asked for.
    const stream = new EventSource(location.href);
    let heard = Date.now();
    const listening = setInterval(() => {
      if (Date.now() - heard < patience) return;
      stop();
      lost();
      follow();
    }, 1000);
    const stop = () => {
      clearInterval(listening);
      stream.close();
    };
    stream.addEventListener('alive', () => { heard = Date.now(); });
    stream.onmessage = (event) => {
      heard = Date.now();
      ahead = Date.now() - Number(event.lastEventId);
      show(event.data);
      say('Live');
    };
    stream.onerror = () => {
      if (stream.readyState !== EventSource.CLOSED) return lost();
      stop();
      poll();
    };
  };

  tick();
  setInterval(tick, 1000);
  if (connection) follow();
})();
