// Spikes: figures of all layers, and the raster of one layer down to the single timestep, in which a reader moves.
const decoded = new Map();
/** Numbers of a layer's raster, `[token][plane][kept neuron]`. */
function numbers(layer) {
  if (!decoded.has(layer)) {
    const raw = bytes(layer.raster.data), kind = { 1: Int8Array, 2: Int16Array, 4: Int32Array }[layer.raster.bytes];
    decoded.set(layer, new kind(raw.buffer));
  }
  return decoded.get(layer);
}
function levelOf(layer, token, i) {
  const n = layer.raster.neurons.length, planes = layer.raster.planes, all = numbers(layer);
  if (planes === 1) return all[token * n + i];
  let level = 0;
  for (let t = 0; t < planes; t++) level += all[(token * planes + t) * n + i] * (layer.code === 'binary' ? 2 ** (layer.timesteps - 1 - t) : 1);
  return level;
}
/** The spike, -1, 0 or 1, of a kept neuron at a timestep. */
function spikeOf(layer, token, i, t) {
  const n = layer.raster.neurons.length;
  if (layer.raster.planes > 1) return numbers(layer)[(token * layer.raster.planes + t) * n + i];
  const level = numbers(layer)[token * n + i], size = Math.abs(level);
  const fires = layer.code === 'binary' ? Math.floor(size / 2 ** (layer.timesteps - 1 - t)) % 2 === 1 : t < size;
  return fires ? Math.sign(level) : 0;
}
const inputText = token => token === 0 ? '⟨first⟩' : shown(data.predictions[token - 1].text);

/** The heat map of all layers; a click on it shows the spikes there. */
function overview(pick) {
  const node = plot(figureNamed('spikes-by-token'));
  node.querySelectorAll('svg').forEach(svg => {
    const [left, top, right, bottom] = svg.dataset.plot.split(' ').map(Number);
    svg.style.cursor = 'crosshair';
    svg.addEventListener('click', event => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const x = (at.x - left) / (right - left), y = (at.y - top) / (bottom - top);
      if (x >= 0 && x < 1 && y >= 0 && y < 1) pick(Math.floor(y * layers.length), Math.floor(x * tokens));
    });
  });
  return el('div', {}, node, el('p', { class: 'key' }, 'A click on a place shows its spikes below.'));
}

function raster() {
  const canvas = el('canvas', { class: 'raster', tabindex: 0, role: 'application', 'aria-roledescription': 'spike raster' });
  const readout = el('p', { class: 'readout', 'aria-live': 'polite' });
  const brush = el('div', { class: 'brush', hidden: true });
  const about = el('p', { class: 'about' });
  const table = el('div', { class: 'inside scroll', tabindex: 0, role: 'region', 'aria-label': 'Levels in view' });
  const asTable = el('details', { ontoggle: () => fillTable() }, el('summary', {}, 'The view as a table'), table);
  const view = { n0: 0, n1: 1, t0: 0, t1: tokens };
  const cursor = { n: 0, t: 0 };
  const inputs = {};
  for (const [key, label] of [['n0', 'first neuron'], ['n1', 'last neuron'], ['t0', 'first token'], ['t1', 'last token']]) {
    inputs[key] = el('input', { type: 'number', min: 0, inputmode: 'numeric', onchange: () => typed(key) });
    inputs[key].label = label;
  }
  const kept = () => layers[site].raster.neurons;
  const clamp = () => {
    const count = kept().length;
    view.n0 = Math.max(0, Math.min(count - 1, Math.round(view.n0)));
    view.n1 = Math.max(view.n0 + 1, Math.min(count, Math.round(view.n1)));
    view.t0 = Math.max(0, Math.min(tokens - 1, Math.round(view.t0)));
    view.t1 = Math.max(view.t0 + 1, Math.min(tokens, Math.round(view.t1)));
    cursor.n = Math.max(view.n0, Math.min(view.n1 - 1, cursor.n));
    cursor.t = Math.max(view.t0, Math.min(view.t1 - 1, cursor.t));
  };
  const show = () => {
    clamp();
    inputs.n0.value = kept()[view.n0];
    inputs.n1.value = kept()[view.n1 - 1];
    inputs.t0.value = view.t0;
    inputs.t1.value = view.t1 - 1;
    say();
    again();
    fillTable();
  };
  /** The index of the first kept neuron from `neuron` on. */
  const keptFrom = neuron => { const i = kept().findIndex(n => n >= neuron); return i < 0 ? kept().length - 1 : i; };
  const typed = key => {
    const value = Math.max(0, +inputs[key].value || 0);
    if (key === 'n0') { view.n0 = keptFrom(value); view.n1 = Math.max(view.n1, view.n0 + 1); }
    if (key === 'n1') { view.n1 = keptFrom(value) + 1; view.n0 = Math.min(view.n0, view.n1 - 1); }
    if (key === 't0') { view.t0 = Math.min(value, tokens - 1); view.t1 = Math.max(view.t1, view.t0 + 1); }
    if (key === 't1') { view.t1 = Math.min(value, tokens - 1) + 1; view.t0 = Math.min(view.t0, view.t1 - 1); }
    show();
  };
  const zoom = factor => {
    const side = (a, b, at, least) => {
      const size = Math.max(least, (b - a) * factor), share = (at + .5 - a) / (b - a);
      const start = at + .5 - size * share;
      return [start, start + size];
    };
    [view.n0, view.n1] = side(view.n0, view.n1, cursor.n, 4);
    [view.t0, view.t1] = side(view.t0, view.t1, cursor.t, 1);
    const count = kept().length;
    if (view.n0 < 0) { view.n1 -= view.n0; view.n0 = 0; }
    if (view.t0 < 0) { view.t1 -= view.t0; view.t0 = 0; }
    if (view.n1 > count) { view.n0 -= view.n1 - count; view.n1 = count; }
    if (view.t1 > tokens) { view.t0 -= view.t1 - tokens; view.t1 = tokens; }
    show();
  };
  const all = () => { Object.assign(view, { n0: 0, n1: kept().length, t0: 0, t1: tokens }); show(); };
  const spikesAt = () => {
    const layer = layers[site], at = [];
    for (let t = 0; t < layer.timesteps; t++) if (spikeOf(layer, cursor.t, cursor.n, t)) at.push(t);
    return at;
  };
  const say = () => {
    const layer = layers[site], level = levelOf(layer, cursor.t, cursor.n), at = spikesAt();
    const list = at.length > 24 ? `${at.slice(0, 24).join(', ')} …` : at.join(', ');
    readout.textContent = `Token ${cursor.t} “${inputText(cursor.t)}”, neuron ${kept()[cursor.n]}: level ${level} of ±${layer.most}, ` +
      (at.length ? `${at.length} ${at.length === 1 ? 'spike' : 'spikes'} at t = ${list}` : 'no spike') + (Math.abs(level) === layer.most ? '; the largest level, so its potential may be clipped' : '');
    canvas.setAttribute('aria-label', `Spikes of ${layer.site}, neurons ${kept()[view.n0]} to ${kept()[view.n1 - 1]}, tokens ${view.t0} to ${view.t1 - 1}. Arrow keys move, plus and minus zoom, 0 shows all. ${readout.textContent}`);
    about.textContent = `${layer.neuron}: ${layer.timesteps} timesteps per token, ${layer.code} code, ${whole(layer.width)} neurons` +
      (kept().length < layer.width ? `, of which ${whole(kept().length)}, spread evenly, are in this page.` : ', all of them in this page.') +
      (layer.code === 'binary' ? ' The first timestep of a token weighs most, each later one half of the one before.' : '') +
      (/gelu|silu/.test(layer.neuron) ? ' Levels count from a middle value of each neuron, so a neuron that is usually off may say the same small level of −1 spikes at every token: a stripe.' : '') +
      (!layer.neuron.startsWith('integrate') ? ' These neurons integrate before they fire, so a level says which spikes there were.' : ' These neurons are time-stepped; every spike was kept.');
  };
  const BOTTOM = 50, TOP = 18;
  const gutter = w => w < 520 ? 34 : 52;
  const cut = (c, text, most) => {
    const all = [...text];
    while (all.length && c.measureText(all.join('')).width > most) all.pop();
    return all.join('');
  };
  const draw = (c, w, h) => {
    const layer = layers[site], left = gutter(w), pw = w - left, ph = h - BOTTOM - TOP;
    const ns = view.n1 - view.n0, ts = view.t1 - view.t0, T = layer.timesteps, cols = ts * T;
    const ratio = c.getTransform().a;
    const gw = Math.max(1, Math.min(Math.floor(pw * ratio), cols)), gh = Math.max(1, Math.min(Math.floor(ph * ratio), ns));
    const up = new Float32Array(gw * gh), down = new Float32Array(gw * gh), size = new Float32Array(gw * gh);
    for (let token = 0; token < ts; token++) for (let i = 0; i < ns; i++) {
      const y = Math.floor(i * gh / ns) * gw;
      for (let t = 0; t < T; t++) {
        const place = y + Math.floor((token * T + t) * gw / cols), spike = spikeOf(layer, view.t0 + token, view.n0 + i, t);
        size[place]++;
        if (spike > 0) up[place]++; else if (spike < 0) down[place]++;
      }
    }
    const paper = rgb(colour('raised')), plus = rgb(colour('positive')), minus = rgb(colour('negative'));
    const image = new ImageData(gw, gh);
    for (let p = 0; p < gw * gh; p++) {
      const a = Math.sqrt(up[p] / Math.max(1, size[p])), b = Math.sqrt(down[p] / Math.max(1, size[p])), sum = a + b;
      const tone = sum ? mix(paper, plus.map((x, k) => (x * a + minus[k] * b) / sum), Math.min(1, sum)) : paper;
      image.data.set([...tone, 255], 4 * p);
    }
    const off = el('canvas', { width: gw, height: gh });
    off.getContext('2d').putImageData(image, 0, 0);
    c.imageSmoothingEnabled = gw >= pw || gh >= ph;
    c.drawImage(off, left, TOP, pw, ph);
    const cell = pw / ts;
    c.font = '11px ' + colour('sans');
    c.fillStyle = colour('muted');
    c.strokeStyle = colour('line');
    c.lineWidth = 1;
    const every = Math.max(1, Math.ceil(46 / cell));
    for (let t = 0; t < ts; t++) {
      const x = left + t * cell;
      if (cell > 14) { c.beginPath(); c.moveTo(x, TOP); c.lineTo(x, TOP + ph); c.stroke(); }
      if (t % every === 0) {
        c.textBaseline = 'top';
        c.textAlign = 'left';
        c.fillStyle = colour('muted');
        c.fillText(String(view.t0 + t), x + 2, TOP + ph + 4);
        c.fillStyle = colour('ink');
        c.fillText(cut(c, inputText(view.t0 + t), cell * every - 4), x + 2, TOP + ph + 18);
      }
    }
    c.fillStyle = colour('muted');
    c.textBaseline = 'top';
    c.textAlign = 'left';
    c.fillText('neuron', 0, 2);
    c.textAlign = 'center';
    c.fillText(`token, of ${T} timesteps each`, left + pw / 2, TOP + ph + 34);
    c.textAlign = 'right';
    c.textBaseline = 'middle';
    const ticks = Math.max(1, Math.ceil(ns / Math.max(2, Math.floor(ph / 26))));
    for (let i = 0; i < ns; i += ticks) c.fillText(String(kept()[view.n0 + i]), left - 6, TOP + Math.max(7, (i + .5) * ph / ns));
    c.strokeStyle = colour('ink');
    c.lineWidth = 1.5;
    c.strokeRect(left + (cursor.t - view.t0) * cell, TOP + (cursor.n - view.n0) * ph / ns, Math.max(cell, 4), Math.max(ph / ns, 4));
  };
  const again = drawn(canvas, draw);
  const asCsv = () => {
    const layer = layers[site], lines = ['neuron,token,timestep,spike'];
    for (let t = view.t0; t < view.t1; t++) for (let n = view.n0; n < view.n1; n++) for (let step = 0; step < layer.timesteps; step++) {
      const spike = spikeOf(layer, t, n, step);
      if (spike) lines.push([kept()[n], t, step + 1, spike].join());
    }
    return lines.join('\n') + '\n';
  };
  const at = event => {
    const box = canvas.getBoundingClientRect(), left = gutter(box.width);
    const share = (x, size) => Math.max(0, Math.min(.9999, x / size));
    return {
      t: view.t0 + Math.floor(share(event.clientX - box.left - left, box.width - left) * (view.t1 - view.t0)),
      n: view.n0 + Math.floor(share(event.clientY - box.top - TOP, box.height - BOTTOM - TOP) * (view.n1 - view.n0)),
    };
  };
  let from = null;
  canvas.addEventListener('pointerdown', event => {
    if (event.pointerType !== 'mouse' || event.button) return;
    from = { ...at(event), x: event.offsetX, y: event.offsetY };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', event => {
    if (!from) return;
    brush.hidden = false;
    brush.style.cssText = `left:${Math.min(from.x, event.offsetX)}px;top:${Math.min(from.y, event.offsetY)}px;width:${Math.abs(event.offsetX - from.x)}px;height:${Math.abs(event.offsetY - from.y)}px`;
  });
  canvas.addEventListener('pointerup', event => {
    const to = at(event), start = from;
    from = null;
    brush.hidden = true;
    Object.assign(cursor, to);
    if (start && Math.hypot(event.offsetX - start.x, event.offsetY - start.y) > 8) {
      Object.assign(view, { n0: Math.min(start.n, to.n), n1: Math.max(start.n, to.n) + 1, t0: Math.min(start.t, to.t), t1: Math.max(start.t, to.t) + 1 });
    }
    show();
  });
  canvas.addEventListener('dblclick', all);
  canvas.addEventListener('wheel', event => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    Object.assign(cursor, at(event));
    zoom(event.deltaY > 0 ? 1.25 : .8);
  }, { passive: false });
  canvas.addEventListener('keydown', event => {
    const step = event.shiftKey ? 10 : 1;
    const move = { ArrowLeft: [0, -step], ArrowRight: [0, step], ArrowUp: [-step, 0], ArrowDown: [step, 0] }[event.key];
    if (move) {
      cursor.n = Math.max(0, Math.min(kept().length - 1, cursor.n + move[0]));
      cursor.t = Math.max(0, Math.min(tokens - 1, cursor.t + move[1]));
      const follow = (low, high, x) => x < view[low] ? x - view[low] : x >= view[high] ? x - view[high] + 1 : 0;
      const dn = follow('n0', 'n1', cursor.n), dt = follow('t0', 't1', cursor.t);
      view.n0 += dn; view.n1 += dn; view.t0 += dt; view.t1 += dt;
      show();
    } else if (event.key === '+' || event.key === '=') zoom(.5);
    else if (event.key === '-') zoom(2);
    else if (event.key === '0') all();
    else return;
    event.preventDefault();
  });
  const fillTable = () => {
    if (!asTable.open) return;
    const layer = layers[site], ns = Math.min(view.n1, view.n0 + 32), ts = Math.min(view.t1, view.t0 + 16), rows = [];
    for (let n = view.n0; n < ns; n++) {
      const cells = [];
      for (let t = view.t0; t < ts; t++) cells.push(el('td', {}, String(levelOf(layer, t, n))));
      rows.push(el('tr', {}, el('th', { scope: 'row' }, String(kept()[n])), cells));
    }
    const head = [];
    for (let t = view.t0; t < ts; t++) head.push(el('th', { scope: 'col' }, `${t} ${inputText(t)}`));
    table.replaceChildren(el('table', {}, el('caption', {}, `Levels of ${layer.site}, a row per neuron, a column per token` + (ns < view.n1 || ts < view.t1 ? '; the first of those in view' : '')),
      el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, 'neuron'), head)), el('tbody', {}, rows)));
  };
  siteListeners.push(() => { if (view.n1 > kept().length) Object.assign(view, { n0: 0, n1: Math.min(kept().length, 96) }); show(); });
  // Few enough that timesteps can be told apart.
  const begin = () => Object.assign(view, { n0: 0, n1: Math.min(kept().length, 96), t0: 0, t1: Math.min(tokens, 24) });
  begin();
  const node = el('div', {}, el('h3', {}, 'One layer'), about,
    el('div', { class: 'tools' }, field('layer', sitePicker()), Object.values(inputs).map(input => field(input.label, input)),
      el('div', { class: 'segment', role: 'group', 'aria-label': 'Zoom' }, el('button', { type: 'button', onclick: () => zoom(.5) }, 'Zoom in'), el('button', { type: 'button', onclick: () => zoom(2) }, 'Zoom out'), el('button', { type: 'button', onclick: all }, 'All'))),
    el('figure', { class: 'plot' }, canvas, brush),
    el('p', { class: 'key' }, saving('raster-view', 'the view of the raster', () => canvasAsSvg(draw, 720, 400, 'Spike raster'), asCsv)),
    el('p', { class: 'key' }, el('span', {}, el('i', { style: 'background:var(--positive)' }), 'spike +1'), el('span', {}, el('i', { style: 'background:var(--negative)' }), 'spike −1'),
      el('span', {}, 'Drag a part to see it larger; double-click for all. Where several spikes share a dot, its strength is their share.')),
    readout, asTable);
  show();
  return { node, goto: (index, token) => {
    chooseSite(index);
    const half = 6;
    Object.assign(view, { t0: token - half, t1: token + half + 1 });
    cursor.t = token;
    show();
    node.scrollIntoView({ block: 'start' });
  } };
}

function spikes() {
  const node = section('spikes', 'Spikes', 'Every neuron spells a level anew for each token, in a few timesteps. A spike is +1 or −1.');
  if (!layers.length) return node.append(absent(el('span', {}, 'Run the program on a text: ', code('--text FILE'))));
  const one = raster();
  const others = figuresOf('spikes').filter(figure => !['spikes-by-token', 'raster', 'membrane'].includes(figure.id));
  node.append(...others.map(figure => plot(figure)), overview(one.goto), one.node, ...['membrane'].map(figureNamed).filter(Boolean).map(figure => plot(figure)));
}
