// Levels: how those of one layer are spread, with what may be clipped, and how much its neurons fire.
function levels() {
  const node = section('levels', 'Levels', 'A level is what a neuron’s spikes add up to. Those at either end are as large as the code can say: a potential beyond is clipped to them.');
  if (!layers.length) return node.append(absent(el('span', {}, 'Run the program on a text: ', code('--text FILE'))));
  const plots = el('div', { class: 'pair' }), words = el('p', { class: 'about', 'aria-live': 'polite' });
  const paint = () => {
    const layer = layers[site];
    words.textContent = `${layer.site}: ${percent(clipped(layer), 3)} of its levels are the largest; on the calibration text ${percent(layer.usually_saturated, 3)} were. ${layer.silent ? `${whole(layer.silent)} of ${whole(layer.width)} neurons never fired on these ${whole(tokens)} tokens.` : 'Every neuron fired.'}`;
    plots.replaceChildren(...['levels-', 'firing-'].map(start => figureOf(start, layer.site)).filter(Boolean).map(figure => plot(figure)));
  };
  siteListeners.push(paint);
  const rows = layers.map(layer => el('tr', { class: isSilent(layer) ? 'defect' : null }, el('th', { scope: 'row' }, layer.site), el('td', {}, layer.timesteps), el('td', {}, whole(layer.width)),
    el('td', {}, isSilent(layer) ? 'silent' : digits(spikesPerNeuron(layer), 3)), el('td', {}, percent(density(layer))), el('td', {}, percent(clipped(layer), 3)), el('td', {}, percent(layer.usually_saturated, 3)), el('td', {}, whole(layer.silent))));
  node.append(el('div', { class: 'tools' }, field('layer', sitePicker())),
    words, plots, el('details', {}, el('summary', {}, 'All layers as a table'), el('div', { class: 'inside scroll', tabindex: 0, role: 'region', 'aria-label': 'All layers' },
      el('table', { class: 'wide' }, el('thead', {}, el('tr', {}, ['layer', 'T', 'neurons', 'spikes per neuron and token', 'density', 'at largest level', 'on calibration text', 'silent neurons'].map((name, i) => el('th', { scope: 'col', class: i ? null : 'left' }, name)))), el('tbody', {}, rows)))));
  paint();
}
