// The head of the page: what it is of, the figures that matter, and what is not as it seems.
const layers = data.layers;
const tokens = data.predictions.length;
const lints = findings.warnings || [];
const spikesPerNeuron = layer => layer.spikes / Math.max(1, layer.width * tokens);
const density = layer => spikesPerNeuron(layer) / layer.timesteps;
const clipped = layer => layer.saturated / Math.max(1, layer.width * tokens);
const isSilent = layer => layer.spikes === 0;

/** An evaluation alone has scores, warnings and a ledger; nothing of single neurons. */
const evaluation = !data.network;

/** What of the multiplications spikes drive, by layer and part. */
function coverage() {
  const parts = (findings.coverage || {}).parts || [];
  if (!parts.length) return null;
  const row = p => el('tr', {}, el('th', { scope: 'row' }, (p.layer === null ? '' : `h.${p.layer} `) + p.part), el('td', {}, whole(p.macs)), el('td', {}, percent(p.macs ? p.driven / p.macs : 0)));
  return el('details', {}, el('summary', {}, 'What spikes drive, by layer and part'), el('div', { class: 'inside scroll', tabindex: 0, role: 'region', 'aria-label': 'What spikes drive' },
    el('table', {}, el('thead', {}, el('tr', {}, ['layer and part', 'multiply-accumulates', 'driven by spikes'].map((name, i) => el('th', { scope: 'col', class: i ? null : 'left' }, name)))), el('tbody', {}, parts.map(row)))));
}

function summary() {
  document.getElementById('title').textContent = data.runs.length > 1 ? data.runs.map(run => run.name).join(', ') : data.title;
  if (data.worse) {
    const line = document.getElementById('worse');
    line.hidden = false;
    const [what, why] = [data.worse.slice(0, data.worse.indexOf(': ')), data.worse.slice(data.worse.indexOf(': '))];
    line.append(el('b', {}, what.charAt(0).toUpperCase() + what.slice(1)), why);
  }
  const facts = data.network, made = data.provenance;
  const words = [];
  if (facts) words.push(`A spiking network of ${facts.layers} layers, width ${whole(facts.width)}, with ${whole(facts.neurons)} neurons per token.`);
  if (evaluation) words.push(`An evaluation on ${whole(findings.tokens || 0)} tokens in ${findings.windows === 1 ? "1 window" : whole(findings.windows || 0) + " windows"}.`);
  if (tokens) words.push(`Here it reads ${whole(tokens)} tokens of ${made.text ? made.text.name : 'a text'}${made.dense ? ', beside ' + made.dense.name : ''}.`);
  document.getElementById('lead').textContent = words.join(' ');
  document.getElementById('made').append('Made by snnc ' + made.snnc + (made.command ? ' with ' : '.'), made.command ? code(made.command) : '');
  const figures = [];
  const figure = (name, value, small) => figures.push(el('div', {}, el('dt', {}, name), el('dd', {}, value, small && el('small', {}, small))));
  if (findings.perplexity) {
    const dense = findings.perplexity_dense, reference = findings.reference === 'spiking' ? 'spiking reference' : 'dense';
    const sure = ends => ends ? `, 95 % interval ${digits(ends[0], 2)} to ${digits(ends[1], 2)}` : '';
    const over = findings.intervals_over ? `intervals by bootstrap over ${whole(findings.intervals_over === 'tokens' ? findings.tokens : findings.windows)} ${findings.intervals_over}` : 'no interval: fewer than ten windows';
    figure('Perplexity', digits(findings.perplexity, 2), `on ${whole(findings.tokens)} tokens${sure(findings.perplexity_95)}`);
    if (dense) {
      figure(`Perplexity, ${reference}`, digits(dense, 2), `on the same tokens${sure(findings.perplexity_dense_95)}`);
      const share = x => signed(100 * x, 2) + ' %';
      figure('Rise of perplexity', share(findings.perplexity_increase), (findings.perplexity_increase_95 ? `95 % interval ${share(findings.perplexity_increase_95[0])} to ${share(findings.perplexity_increase_95[1])}; ` : '') + over);
      figure('KL divergence', digits(findings.kl, 5), `nats per token, from ${reference}` + (findings.kl_95 ? `, 95 % interval ${digits(findings.kl_95[0], 5)} to ${digits(findings.kl_95[1], 5)}` : ''));
    }
    figure('Next-token accuracy', percent(findings.accuracy), findings.accuracy_dense !== undefined ? `${percent(findings.accuracy_dense)} ${reference}` : `of ${whole(findings.tokens)} tokens`);
  }
  if (findings.top1_agreement !== undefined) figure('Top-1 agreement', percent(findings.top1_agreement), findings.reference === 'spiking' ? 'both spiking programs' : 'spiking and dense network');
  if (findings.cosine_centred !== undefined) figure('Cosine of logits', digits(findings.cosine_centred, 5), 'around their means');
  if (findings.spikes_per_neuron !== undefined) figure('Spikes per neuron', digits(findings.spikes_per_neuron, 2), `in ${digits(findings.timesteps_mean, findings.timesteps_mean % 1 ? 2 : 0)} timesteps, per token`);
  energyFigures(figure);
  if (findings.coverage) figure('Driven by spikes', percent(findings.coverage.share), 'of the multiplications');
  const defects = layers.filter(isSilent);
  const notes = [
    ...defects.map(layer => el('li', { class: 'defect' }, el('b', {}, 'Defect: ' + layer.site + ' is silent. '),
      `None of its ${whole(layer.width)} neurons fired on ${whole(tokens)} tokens. What it does not spend is not a saving: nothing passes through it.`)),
    ...lints.filter(lint => lint.kind !== 'silent' || !defects.some(layer => lint.place === layer.site)).map(lint =>
      el('li', { class: lint.kind === 'silent' ? 'defect' : null }, el('b', {}, lint.kind + ': '), lint.place + ': ' + lint.message)),
  ];
  if (made.dense_is_source === false) notes.push(el('li', {}, el('b', {}, 'unlike: '), `${made.dense.name} is not the file that the program was compiled from.`));
  section('summary', 'At a glance', null,
    figures.length ? el('dl', { class: 'figures' }, figures) : absent(el('span', {}, 'Run the program on a text: ', code('--text FILE'))),
    notes.length ? el('ul', { class: 'notes', 'aria-label': 'Warnings' }, notes) : null,
    coverage(),
    data.missing.length ? el('details', { open: evaluation }, el('summary', {}, `What this report does not have `, el('small', {}, `(${data.missing.length})`)),
      el('div', { class: 'inside' }, el('dl', { class: 'facts' }, data.missing.map(m => [el('dt', {}, m.part), el('dd', {}, m.how)])))) : null);
}
