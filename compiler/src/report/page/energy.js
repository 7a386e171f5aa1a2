// Energy: both networks in every form, priced by the list that the reader chooses.
const FORMS = { dense_f32: 'dense, f32', dense_f16: 'dense, f16', dense_int8: 'dense, int8', dense_int8_skipping: 'dense, int8, zeros skipped', spiking_stepped: 'spiking, every timestep', spiking_collapsed: 'spiking, time collapsed' };
const isSpiking = form => form.startsWith('spiking');
const LIST = 'paper45';
const plain = name => name.replace(/_/g, ' ');
const firstList = () => data.energy.prices[LIST] ? LIST : Object.keys(data.energy.prices)[0];

/** A total, or what is priced of it. */
function joules(cost) {
  if (!cost) return '–';
  return cost.pj !== null ? energyOf(cost.pj) : cost.partial_pj > 0 ? `≥ ${energyOf(cost.partial_pj)}` : 'no price';
}
const saved = (dense, spiking, silent) => silent || !dense || !spiking || dense.pj === null || spiking.pj === null || !dense.pj ? null : 1 - spiking.pj / dense.pj;
const savedText = (share, silent) => silent ? 'a defect' : share === null ? 'not priced' : percent(share);

function energyFigures(figure) {
  if (!data.energy) return;
  const list = firstList(), total = data.energy.total[list];
  const int8 = data.energy.prefill.total.dense_int8, against = saved(int8 && int8.prices[list], data.energy.prefill.total.spiking_collapsed.prices[list], total.silent);
  figure('Energy saved', total.silent ? 'none' : data.worse ? '–' : total.saving === null ? 'not priced' : percent(total.saving), total.silent ? 'a silent layer is a defect' : data.worse ? 'saving means little where the text is worth little; see below' : `by ${list} in prefill, against f32${against === null ? '' : `; ${percent(against)} against int8`}; see below for other lists`);
}

function energy() {
  const e = data.energy;
  const node = section('energy', 'Energy', 'An estimate per token: what was counted in this run, at the prices of a list. Lists differ by what they price; none is the truth, so look at several.');
  if (!e) return node.append(absent(el('span', {}, 'Run the program on a text: ', code('--text FILE'))));
  let list = firstList(), dense = 'dense_f32', phase = 'prefill', spiking = 'spiking_collapsed';
  const place = el('div', {});
  const of = (block, form) => (e[phase][block][form] || { prices: {} }).prices[list];
  const silent = e.defects.length > 0;

  const forms = () => {
    const names = Object.keys(FORMS).filter(form => e[phase].total[form]);
    const amount = form => { const cost = of('total', form); return cost ? Math.max(0, cost.pj ?? cost.partial_pj) : 0; };
    const most = Math.max(...names.map(amount), 1e-12);
    const missing = [...new Set(names.flatMap(form => of('total', form) ? of('total', form).unpriced : []))];
    const partial = form => of('total', form) && of('total', form).pj === null;
    const row = form => el('tr', {}, el('th', { scope: 'row', class: 'barred' }, FORMS[form], el('div', { class: 'bars', 'aria-hidden': true }, amount(form) > 0 && el('span', { style: `background:var(--${isSpiking(form) ? 'spiking' : 'dense'});width:${(100 * amount(form) / most).toFixed(2)}%${partial(form) ? ';opacity:.45' : ''}` }))),
      el('td', {}, joules(of('total', form))));
    return [el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Forms side by side' }, el('table', { class: 'wide' }, el('caption', {}, `The whole network, ${phase === 'prefill' ? 'prefill' : 'decode, one token after the other'}, energy per token`),
      el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'left' }, 'form'), el('th', { scope: 'col' }, 'energy'))), el('tbody', {}, names.map(row)))),
      missing.length ? el('p', { class: 'key' }, `There is no total where the list has no price of ${missing.map(plain).join(', ')}.${names.some(form => partial(form) && amount(form) > 0) ? ' ≥ and a pale bar: what has a price.' : ''}`) : null];
  };
  const blocks = () => {
    const names = { attention_block: 'attention with its projections', attention_core: 'attention alone: scores, softmax, values', total: 'the whole network' };
    return el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'By block' }, el('table', { class: 'wide' }, el('thead', {}, el('tr', {}, ['block', FORMS[dense], FORMS[spiking], 'saved'].map((name, i) => el('th', { scope: 'col', class: i ? null : 'left' }, name)))),
      el('tbody', {}, Object.keys(names).map(block => {
        const defect = silent && e[block][list] && e[block][list].silent;
        return el('tr', { class: defect ? 'defect' : block === 'total' ? 'total' : null }, el('th', { scope: 'row' }, names[block]), el('td', {}, joules(of(block, dense))), el('td', {}, joules(of(block, spiking))), el('td', {}, savedText(saved(of(block, dense), of(block, spiking), defect), defect)));
      }))));
  };
  const rows = () => {
    const cost = row => row.prices[list], amount = (c, key) => c[key + '_pj'] ?? c[key + '_partial_pj'] ?? 0;
    const most = Math.max(...e.rows.map(row => Math.max(amount(cost(row), 'dense'), amount(cost(row), 'spiking'))), 1e-12);
    const said = (c, key) => joules({ pj: c[key + '_pj'], partial_pj: amount(c, key) });
    const bar = (c, key) => el('span', { style: `background:var(--${key});width:${(100 * amount(c, key) / most).toFixed(2)}%` });
    return el('details', { open: e.rows.length <= 40 }, el('summary', {}, 'By layer and part ', el('small', {}, 'f32 beside time collapsed, in prefill')), el('div', { class: 'inside scroll', tabindex: 0, role: 'region', 'aria-label': 'By layer and part' },
      el('p', { class: 'key' }, el('span', {}, el('i', { style: 'background:var(--dense)' }), 'dense'), el('span', {}, el('i', { style: 'background:var(--spiking)' }), 'spiking')),
      el('table', { class: 'wide' }, el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'left' }, 'layer and part'), ['dense', 'spiking', 'saved', 'spikes per neuron'].map(name => el('th', { scope: 'col' }, name)))),
        el('tbody', {}, e.rows.filter(row => amount(cost(row), 'dense') || amount(cost(row), 'spiking')).map(row => { const c = cost(row); return el('tr', { class: c.silent ? 'defect' : null }, el('th', { scope: 'row', class: 'barred' }, (row.layer === null ? '' : `h.${row.layer} `) + row.part, el('div', { class: 'bars', 'aria-hidden': true }, bar(c, 'dense'), bar(c, 'spiking'))),
          el('td', {}, said(c, 'dense')), el('td', {}, said(c, 'spiking')), el('td', {}, c.silent ? 'a defect' : c.saving === null ? '–' : percent(c.saving)), el('td', {}, row.neurons ? digits(row.spikes_per_neuron, 2) : '–')); })))));
  };
  const even = () => {
    const list_ = [...(e.break_even[list] || {})[dense] || []].sort((a, b) => (a.layer ?? Infinity) - (b.layer ?? Infinity));
    const head = el('h3', {}, 'Break-even');
    if (!list_.length) return [head, el('p', { class: 'about' }, 'This list gives no totals to compare.')];
    const most = Math.max(...list_.map(row => Math.max(row.spikes, row.break_even_spikes)), 1e-9), W = 160;
    const x = spikes => 6 + (W - 12) * Math.max(0, spikes) / most;
    const line = (x1, y1, x2, y2) => el('svg:line', { x1, y1, x2, y2, class: 'axis' });
    const mark = row => el('svg:svg', { viewBox: `0 0 ${W} 18`, width: W, style: 'width:' + W + 'px', 'aria-hidden': true }, line(6, 9, W - 6, 9), el('svg:line', { x1: x(row.break_even_spikes), x2: x(row.break_even_spikes), y1: 2, y2: 16, stroke: 'var(--negative)', 'stroke-width': 3 }), el('svg:circle', { cx: x(row.spikes), cy: 9, r: 5, fill: 'var(--spiking)' }));
    return [head, el('p', { class: 'about' }, `How many spikes per neuron and token would make a part cost as much as ${FORMS[dense]}. In the drawing the bar is the break-even and the dot is this run: left of the bar spiking costs less.`),
      el('details', { open: list_.length <= 12 }, el('summary', {}, `${list_.filter(row => row.spikes < row.break_even_spikes).length} of ${list_.length} parts are below it`), el('div', { class: 'inside scroll', tabindex: 0, role: 'region', 'aria-label': 'Break-even' }, el('table', { class: 'wide' },
        el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'left' }, 'part'), ['spikes per neuron and token', 'break-even spikes', 'timesteps', 'break-even timesteps'].map(name => el('th', { scope: 'col' }, name)))),
        el('tbody', {}, list_.map(row => el('tr', {}, el('th', { scope: 'row', class: 'barred' }, (row.layer === null ? '' : `h.${row.layer} `) + row.part, mark(row)), el('td', {}, digits(row.spikes, 2)), el('td', {}, row.break_even_spikes <= 0 ? 'never' : digits(row.break_even_spikes, 2)), el('td', {}, digits(row.timesteps, 1)), el('td', {}, row.break_even_timesteps <= 0 ? 'never' : digits(row.break_even_timesteps, 1))))))))];
  };
  const sensitivity = () => {
    const items = Object.entries(((e.sensitivity || {})[list] || {}).total || {}).sort((a, b) => Math.max(b[1].dense_share, b[1].spiking_share) - Math.max(a[1].dense_share, a[1].spiking_share));
    if (!items.length) return null;
    return el('details', {}, el('summary', {}, 'What every price does to the saving ', el('small', {}, 'the whole network, f32 beside time collapsed')), el('div', { class: 'inside scroll', tabindex: 0, role: 'region', 'aria-label': 'Sensitivity' }, el('table', { class: 'wide' },
      el('thead', {}, el('tr', {}, ['price of', 'share of dense', 'share of spiking', 'saved at half of it', 'at twice'].map((name, i) => el('th', { scope: 'col', class: i ? null : 'left' }, name)))),
      el('tbody', {}, items.map(([name, s]) => el('tr', {}, el('th', { scope: 'row' }, plain(name)), el('td', {}, percent(s.dense_share)), el('td', {}, percent(s.spiking_share)), el('td', {}, percent(s.saving_halved)), el('td', {}, percent(s.saving_doubled))))))));
  };
  const about = el('p', { class: 'about', 'aria-live': 'polite' });
  const paint = () => {
    about.textContent = `${list}: ${e.prices[list].about || ''}`;
    const waterfall = figureOf('energy-by-part', list);
    place.replaceChildren(...[forms(), waterfall && plot(waterfall), el('h3', {}, 'By block'), blocks(), even(), rows(), sensitivity()].flat(Infinity).filter(Boolean));
  };
  node.append(silent ? el('p', { class: 'absent', style: 'border-color:var(--bad);color:var(--bad)' }, `Neurons of ${e.defects.map(d => d.layer).join(', ')} never fired. What they do not spend is shown, and is no saving.`) : '',
    figureNamed('energy-by-list') ? plot(figureNamed('energy-by-list')) : '', el('div', { class: 'tools' }, field('prices', select(Object.keys(e.prices).map(name => [name, name]), list, value => { list = value; paint(); })),
      field('against', select(Object.keys(FORMS).filter(form => !isSpiking(form)).map(form => [form, FORMS[form]]), dense, value => { dense = value; paint(); })),
      segment('Spiking form', [['spiking_collapsed', 'Time collapsed'], ['spiking_stepped', 'Every timestep']], spiking, value => { spiking = value; paint(); }),
      segment('Phase', [['prefill', 'Prefill'], ['decode', 'Decode']], phase, value => { phase = value; paint(); })), about, place);
  paint();
}
