// Energy: the operations of both networks, priced.
function energyFigures(figure) {
  const total = data.energy && data.energy.total;
  if (total) figure('Energy saved', percent(total.saving), 'operations only, ' + data.energy.prices.name);
}

function energy() {
  const e = data.energy;
  const node = section('energy', 'Energy', 'An estimate: operations that were counted in this run, at published prices of one.');
  if (!e) return node.append(absent(el('span', {}, 'Run the program on a text: ', code('--text FILE'))));
}
