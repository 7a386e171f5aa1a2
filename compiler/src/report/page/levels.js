// Levels: how those of one layer are spread, with what may be clipped, and how much its neurons fire.
function chart(width, height, label, ...children) {
  return el('svg:svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label }, ...children);
}
const svgText = (x, y, anchor, text) => el('svg:text', { x, y, 'text-anchor': anchor }, text);
const line = (x1, y1, x2, y2) => el('svg:line', { x1, y1, x2, y2, class: 'axis' });

function histogram(layer, log) {
  const { ranges, counts } = layer.histogram, all = counts.reduce((a, b) => a + b, 0), last = counts.length - 1;
  const W = room(true), H = 250, B = 216, L = 8, step = (W - 2 * L) / counts.length;
  const most = Math.max(...counts, 1);
  const tall = x => x === 0 ? 0 : log ? Math.log10(1 + x) / Math.log10(1 + most) : x / most;
  const bars = counts.map((x, i) => {
    const end = i === 0 || i === last, h = Math.max(x ? 1.5 : 0, tall(x) * (B - 22));
    const [low, high] = ranges[i];
    return el('svg:rect', { x: L + i * step + .5, y: B - h, width: Math.max(1, step - 1), height: h, rx: 1, fill: end ? 'var(--negative)' : ranges[i][0] === 0 ? 'var(--muted)' : 'var(--spiking)' },
      el('svg:title', {}, `${low === high ? 'level ' + low : `levels ${low} to ${high}`}: ${whole(x)}, ${percent(x / all, 2)}`));
  });
  const middle = L + (counts.length / 2) * step;
  return chart(W, H, `Levels of ${layer.site}: ${percent(counts[last >> 1] / all)} are zero, ${percent((counts[0] + counts[last]) / all, 2)} are the largest, ±${layer.most}`,
    line(L, B, W - L, B), bars, svgText(L, H - 12, 'start', '−' + layer.most), svgText(middle, H - 12, 'middle', '0'), svgText(W - L, H - 12, 'end', '+' + layer.most),
    svgText(L, 12, 'start', log ? 'count, logarithmic' : 'count'));
}

function byNeuron(layer) {
  const rates = [...bytes(layer.by_neuron)].map(x => x / 255).sort((a, b) => b - a);
  const W = room(true), H = 250, B = 216, L = 34, n = rates.length;
  const points = [];
  for (let i = 0; i < Math.min(n, 280); i++) {
    const at = Math.min(n - 1, Math.round(i * (n - 1) / Math.max(1, Math.min(n, 280) - 1)));
    points.push([L + (W - L - 8) * (n > 1 ? at / (n - 1) : 0), B - rates[at] * (B - 22)]);
  }
  const path = points.map(([x, y], i) => (i ? 'L' : 'M') + x.toFixed(1) + ' ' + y.toFixed(1)).join(' ');
  return chart(W, H, `Neurons of ${layer.site} by how much they fire: the most at ${percent(rates[0] || 0)} of the timesteps, the median at ${percent(rates[n >> 1] || 0)}, ${layer.silent} never`,
    [0, .5, 1].map(share => [line(L, B - share * (B - 22), W - 8, B - share * (B - 22)), svgText(L - 6, B - share * (B - 22) + 4, 'end', percent(share, 0).replace(' ', ''))]),
    el('svg:path', { d: `${path} L ${W - 8} ${B} L ${L} ${B} Z`, fill: 'var(--spiking)', opacity: .18 }), el('svg:path', { d: path, fill: 'none', stroke: 'var(--spiking)', 'stroke-width': 2 }),
    svgText(L, H - 12, 'start', 'the busiest neuron'), svgText(W - 8, H - 12, 'end', 'the quietest'));
}

function levels() {
  const node = section('levels', 'Levels', 'A level is what a neuron’s spikes add up to. Those at either end are as large as the code can say: a potential beyond is clipped to them.');
  if (!layers.length) return node.append(absent(el('span', {}, 'Run the program on a text: ', code('--text FILE'))));
  let log = true;
  const plots = el('div', { class: 'pair' }), words = el('p', { class: 'about', 'aria-live': 'polite' });
  const figure = (drawing, caption) => el('figure', { class: 'plot' }, drawing, el('figcaption', { class: 'key' }, caption));
  const paint = () => {
    const layer = layers[site];
    words.textContent = `${layer.site}: ${percent(clipped(layer), 3)} of its levels are the largest; on the calibration text ${percent(layer.usually_saturated, 3)} were. ${layer.silent ? `${whole(layer.silent)} of ${whole(layer.width)} neurons never fired on these ${whole(tokens)} tokens.` : 'Every neuron fired.'}`;
    plots.replaceChildren(
      figure(histogram(layer, log), [el('span', {}, el('i', { style: 'background:var(--spiking)' }), 'levels'), el('span', {}, el('i', { style: 'background:var(--muted)' }), 'zero: no spike'), el('span', {}, el('i', { style: 'background:var(--negative)' }), 'the largest: clipped, or just there')]),
      figure(byNeuron(layer), 'Timesteps at which a neuron fired, neurons in descending order'));
  };
  siteListeners.push(paint);
  onRedraw(paint);
  const rows = layers.map(layer => el('tr', { class: isSilent(layer) ? 'defect' : null }, el('th', { scope: 'row' }, layer.site), el('td', {}, layer.timesteps), el('td', {}, whole(layer.width)),
    el('td', {}, isSilent(layer) ? 'silent' : digits(spikesPerNeuron(layer), 3)), el('td', {}, percent(density(layer))), el('td', {}, percent(clipped(layer), 3)), el('td', {}, percent(layer.usually_saturated, 3)), el('td', {}, whole(layer.silent))));
  node.append(el('div', { class: 'tools' }, field('layer', sitePicker()), el('label', { class: 'check' }, el('input', { type: 'checkbox', checked: true, onchange: event => { log = event.target.checked; paint(); } }), 'logarithmic')),
    words, plots, el('details', {}, el('summary', {}, 'All layers as a table'), el('div', { class: 'inside scroll', tabindex: 0, role: 'region', 'aria-label': 'All layers' },
      el('table', { class: 'wide' }, el('thead', {}, el('tr', {}, ['layer', 'T', 'neurons', 'spikes per neuron', 'density', 'at largest level', 'on calibration text', 'silent neurons'].map((name, i) => el('th', { scope: 'col', class: i ? null : 'left' }, name)))), el('tbody', {}, rows)))));
  paint();
}
