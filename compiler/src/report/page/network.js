// The network: every layer of neurons as a cell of a map, and what each ONNX node became.
let site = Math.max(0, layers.findIndex(layer => layer.site.endsWith('mlp.hidden')));
const siteListeners = [];
/** Chooses the layer that spikes and levels are shown of. */
function chooseSite(index) {
  site = index;
  siteListeners.forEach(listener => listener());
}
const sitePicker = () => {
  const node = select(layers.map((layer, i) => [String(i), layer.site]), String(site), value => chooseSite(+value));
  siteListeners.push(() => { node.value = String(site); });
  return node;
};

const MEASURES = {
  spikes: { name: 'Spikes per neuron', about: 'spikes per neuron and token', of: spikesPerNeuron, text: x => digits(x, 2) },
  density: { name: 'Density', about: 'of the timesteps have a spike', of: density, text: x => percent(x, 0) },
  clipped: { name: 'At the largest level', about: 'of the levels are the largest: what is beyond is clipped', of: clipped, text: x => percent(x, x && x < .01 ? 2 : 1) },
  silent: { name: 'Silent neurons', about: 'of the neurons never fired in this run', of: layer => layer.silent / layer.width, text: x => percent(x, 0) },
};

function networkMap() {
  if (!layers.length) return absent(el('span', {}, 'Neurons show when the program runs on a text: ', code('--text FILE')));
  const columns = [], blocks = [];
  const column = layer => layer.site.startsWith(layer.block + '.') ? layer.site.slice(layer.block.length + 1) : layer.site;
  layers.forEach(layer => {
    if (layer.site !== layer.block && !columns.includes(column(layer))) columns.push(column(layer));
    if (!blocks.includes(layer.block)) blocks.push(layer.block);
  });
  let measure = 'spikes';
  const cells = [];
  const paint = () => {
    const { of, text } = MEASURES[measure];
    const most = measure === 'density' ? 1 : Math.max(...layers.map(of), 1e-9);
    layers.forEach((layer, i) => {
      const value = of(layer), fill = ramp(value / most), button = cells[i];
      button.style.background = css(fill);
      button.style.color = over(fill);
      button.classList.toggle('silent', isSilent(layer));
      button.replaceChildren(isSilent(layer) ? 'silent' : text(value), el('small', {}, 'T = ' + layer.timesteps));
      button.setAttribute('aria-label', `${layer.site}: ${isSilent(layer) ? 'silent, a defect' : text(value) + ' ' + MEASURES[measure].about}, ${layer.timesteps} timesteps, ${layer.width} neurons`);
      button.setAttribute('aria-pressed', i === site);
    });
    high.textContent = MEASURES[measure].text(most);
    about.textContent = MEASURES[measure].about;
  };
  const cell = i => (cells[i] = el('button', { type: 'button', onclick: () => chooseSite(i) }));
  const wide = block => el('td', { colspan: Math.max(1, columns.length) }, cell(layers.findIndex(layer => layer.block === block)));
  const high = el('span'), about = el('span');
  // What is a block of its own, as the head, takes the whole row.
  const alone = block => layers.filter(layer => layer.block === block).length === 1;
  const body = blocks.map(block => el('tr', {}, el('th', { scope: 'row' }, block), alone(block) ? wide(block) : columns.map(name => {
    const i = layers.findIndex(layer => layer.block === block && column(layer) === name);
    if (i < 0) return el('td', {});
    return el('td', {}, cell(i));
  })));
  siteListeners.push(paint);
  onRedraw(paint);
  return el('div', {},
    el('div', { class: 'tools' }, segment('Colour by', Object.entries(MEASURES).map(([key, m]) => [key, m.name]), measure, value => { measure = value; paint(); })),
    el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Map of the neuron layers' },
      el('table', { class: 'map' }, el('caption', { class: 'hidden' }, 'Neuron layers by block and by what they code'),
        el('thead', {}, el('tr', {}, el('td', {}), columns.map(name => el('th', { scope: 'col' }, name)))), el('tbody', {}, body))),
    el('p', { class: 'key' }, el('span', {}, '0', el('span', { class: 'ramp' }), high, ' ', about), el('span', {}, 'A cell chooses the layer that spikes and levels below are of.')));
}

function conversions() {
  const row = c => el('tr', {}, el('th', { scope: 'row', class: 'mono', style: 'white-space:normal;min-width:9rem' }, c.origin || '–'),
    el('td', { class: 'left ops' }, c.dense.length ? c.dense.join(', ') : '–'), el('td', { class: 'left ops' }, c.spiking.join(' → ')), el('td', { class: 'left ops' }, c.gives));
  const known = data.blocks.some(block => block.conversions.some(c => c.dense.length));
  const whole = (block, open) => el('details', { open }, el('summary', {}, block.name + ' ', el('small', {}, block.conversions.length === 1 ? '1 node' : `${block.conversions.length} nodes`)),
    el('div', { class: 'inside scroll', tabindex: 0, role: 'region', 'aria-label': 'Conversion of ' + block.name }, el('table', { class: 'wide' },
      el('thead', {}, el('tr', {}, ['ONNX node', 'dense', 'spiking', 'gives'].map(name => el('th', { scope: 'col', class: 'left' }, name)))), el('tbody', {}, block.conversions.map(row)))));
  // Blocks that are converted as the one before them wait behind it.
  const way = block => JSON.stringify(block.conversions.map(c => [c.dense, c.spiking]));
  const groups = [];
  data.blocks.forEach(block => {
    const last = groups[groups.length - 1];
    if (last && way(last[0]) === way(block)) last.push(block); else groups.push([block]);
  });
  const group = ([first, ...more], i) => [whole(first, i === 1), more.length > 0 && el('details', {},
    el('summary', {}, (more.length > 1 ? `${more[0].name} to ${more[more.length - 1].name}` : more[0].name) + ' ', el('small', {}, 'the same way')), el('div', { class: 'inside', style: 'padding-left:1.2rem' }, more.map(block => whole(block, false))))];
  return [el('h3', {}, 'What every node became'),
    !known && el('p', { class: 'about' }, 'The dense operations need the ONNX file: ', code('--reference MODEL.onnx'), '.'), groups.map(group)];
}

/** What the blocks are made of: positions, norms, attention, MLPs. */
function architecture() {
  const parts = (data.network || {}).architecture || [];
  return parts.length ? el('dl', { class: 'facts' }, parts.map(part => [el('dt', {}, part.name), el('dd', {}, part.words)])) : null;
}

function network() {
  section('network', 'Network', 'Rows are the blocks in their order, columns what a layer of neurons codes: what a projection reads, or queries, keys and values.',
    architecture(), networkMap(), data.blocks.length ? conversions() : null);
}
