// Parts that other files bring: several programs side by side, the front of tuning, a training run.
function comparison() {
  const runs = data.runs;
  if (runs.length < 2) return;
  const list = runs[0].energy.length ? (runs[0].energy.find(e => e.list === LIST) || runs[0].energy[0]).list : null;
  const node = section('runs', 'Programs side by side', `${runs.length} programs on the same ${whole(tokens)} tokens. All parts below are of the first, ${runs[0].name}.`);
  const interval = ends => ends ? ` (${digits(ends[0], 2)} to ${digits(ends[1], 2)})` : '';
  const energy = run => run.energy.find(e => e.list === list) || {};
  const row = run => el('tr', {}, el('th', { scope: 'row' }, run.name, run.worse && el('small', { class: 'bad' }, ' ' + run.worse.split(': ')[0])), el('td', {}, digits(run.perplexity, 2) + interval(run.perplexity_95)),
    el('td', {}, run.kl === null ? '–' : digits(run.kl, 6)), el('td', {}, digits(run.spikes_per_neuron, 3)), el('td', {}, digits(run.timesteps_mean, 2)), el('td', {}, energy(run).spiking_pj == null ? 'not priced' : energyOf(energy(run).spiking_pj)), el('td', { class: 'left ops' }, run.options || '–'));
  const waterfall = el('div', {});
  const paint = name => waterfall.replaceChildren(...[figureOf('runs-energy', name)].filter(Boolean).map(figure => plot(figure)));
  const priced = runs[0].energy.map(e => e.list).filter(name => figureOf('runs-energy', name));
  node.append(el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Programs side by side' }, el('table', { class: 'wide' },
    el('thead', {}, el('tr', {}, ['program', 'perplexity (95 % interval)', 'KL from dense, nats', 'spikes per neuron and token', 'timesteps, mean', `energy per token, ${list}`, 'options'].map((name, i) => el('th', { scope: 'col', class: i && i < 6 ? null : 'left' }, name)))), el('tbody', {}, runs.map(row)))),
  ...figuresOf('runs').filter(figure => !figure.of).map(figure => plot(figure)));
  if (priced.length) {
    const first = priced.includes(list) ? list : priced[0];
    node.append(el('div', { class: 'tools' }, field('prices', select(priced.map(name => [name, name]), first, paint))), waterfall);
    paint(first);
  }
}

function front() {
  if (!data.front) return;
  const { budget, minimise, chosen, points } = data.front;
  section('front', 'Perplexity against cost', `What \`snnc tune\` measured: ${points.length} allocations of timesteps. ` + (chosen ? `The least ${minimise} within ${budget} has ${digits(chosen.timesteps_mean, 2)} timesteps on average and ${signed(100 * chosen.perplexity_increase, 2)} % perplexity.` : `None is within ${budget}.`),
    chosen && el('p', {}, 'Its options: ', code(chosen.flags)), figuresOf('front').map(figure => plot(figure)));
}

function training() {
  if (!data.training) return;
  const { before, after, steps } = data.training;
  const side = c => c && `perplexity ${digits(c.perplexity, 2)}, top-1 agreement ${percent(c.top1_agreement)}`;
  section('training', 'Training', [steps.length && `${whole(steps[steps.length - 1][0])} steps.`, before && `Before: ${side(before)}.`, after && `After: ${side(after)}.`].filter(Boolean).join(' '), figuresOf('training').map(figure => plot(figure)));
}
