// What all parts use: elements, numbers, colours of the theme, and the order of sections.
const data = JSON.parse(document.getElementById('data').textContent);
const main = document.getElementById('main');
const findings = data.evaluation || {};
const still = matchMedia('(prefers-reduced-motion: reduce)');

/** An element: attributes that are functions listen, `text` is text, null is left out. */
function el(tag, attributes, ...children) {
  const node = tag.startsWith('svg:') ? document.createElementNS('http://www.w3.org/2000/svg', tag.slice(4)) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith('aria-') && typeof value === 'boolean') { node.setAttribute(key, String(value)); continue; }
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') node.addEventListener(key.slice(2), value);
    else if (key === 'style') node.style.cssText = value;
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

const digits = (x, n) => x.toLocaleString('en-GB', { minimumFractionDigits: n, maximumFractionDigits: n });
const whole = x => Math.round(x).toLocaleString('en-GB');
const percent = (x, n = 1) => Number.isFinite(x) ? digits(100 * x, n) + ' %' : '–';
const signed = (x, n) => (x >= 0 ? '+' : '−') + digits(Math.abs(x), n);
/** A number with a metric prefix and three digits. */
function metric(x, unit) {
  const prefixes = [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k'], [1, ''], [1e-3, 'm'], [1e-6, 'µ'], [1e-9, 'n'], [1e-12, 'p']];
  if (x === 0) return '0 ' + unit;
  const [scale, prefix] = prefixes.find(([scale]) => Math.abs(x) >= scale) || prefixes[prefixes.length - 1];
  const y = x / scale;
  return digits(y, Math.abs(y) >= 100 ? 0 : Math.abs(y) >= 10 ? 1 : 2) + ' ' + prefix + unit;
}
const energyOf = pj => metric(pj * 1e-12, 'J');
const bytesOf = n => n >= 1e6 ? digits(n / 1e6, 1) + ' MB' : n >= 1e3 ? digits(n / 1e3, 1) + ' kB' : n + ' bytes';
/** A token's text such that all of it shows. */
const shown = text => text === '' ? '∅' : text.replace(/\n/g, '↵').replace(/\t/g, '⇥').replace(/ /g, '·');

function bytes(base64) {
  const text = atob(base64), out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
  return out;
}

// --- theme ---
const redraws = [], colours = new Map();
const onRedraw = draw => { redraws.push(draw); return draw; };
const redraw = () => { colours.clear(); redraws.forEach(draw => draw()); };
const dark = matchMedia('(prefers-color-scheme: dark)');
let choice = 'auto';
try { choice = localStorage.getItem('snnc-theme') || 'auto'; } catch { /* A page from a file may have no storage. */ }
function theme() {
  document.documentElement.dataset.theme = choice === 'auto' ? (dark.matches ? 'dark' : 'light') : choice;
  document.querySelectorAll('[data-theme-choice]').forEach(b => b.setAttribute('aria-pressed', b.dataset.themeChoice === choice));
  redraw();
}
document.querySelectorAll('[data-theme-choice]').forEach(button => button.addEventListener('click', () => {
  choice = button.dataset.themeChoice;
  try { localStorage.setItem('snnc-theme', choice); } catch { /* Then it is for this visit. */ }
  theme();
}));
dark.addEventListener('change', theme);
/** A colour of the theme, looked up once. */
function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim());
  return colours.get(name);
}
const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const mix = (a, b, t) => a.map((x, i) => Math.round(x + (b[i] - x) * t));
/** The ramp's colour of a share from 0 to 1. */
function ramp(share) {
  const [a, b, c] = ['ramp-0', 'ramp-1', 'ramp-2'].map(name => rgb(colour(name)));
  const t = Math.max(0, Math.min(1, share));
  return t < .5 ? mix(a, b, 2 * t) : mix(b, c, 2 * t - 1);
}
const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
/** Black or white, whichever reads better on a colour: 4.58 to 1 at the least. */
function over([r, g, b]) {
  const lin = x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  return .2126 * lin(r) + .7152 * lin(g) + .0722 * lin(b) > .179 ? '#000' : '#fff';
}

// --- sections ---
function section(id, title, about, ...children) {
  const node = el('section', { id, 'aria-labelledby': id + '-title' }, el('h2', { id: id + '-title' }, title),
    about && el('p', { class: 'about' }, about), ...children);
  main.append(node);
  document.getElementById('contents').append(el('li', {}, el('a', { href: '#' + id }, title)));
  return node;
}
const absent = how => el('p', { class: 'absent' }, 'Not in this report. ', how);
const code = text => el('code', {}, text);

/** A group of buttons of which one is pressed. */
function segment(label, options, now, pick) {
  const buttons = options.map(([value, name]) => el('button', { type: 'button', 'aria-pressed': value === now, onclick: () => {
    buttons.forEach((b, i) => b.setAttribute('aria-pressed', options[i][0] === value));
    pick(value);
  } }, name));
  return el('div', { class: 'segment', role: 'group', 'aria-label': label }, buttons);
}
const field = (label, control) => el('label', {}, label, control);
function select(options, now, pick) {
  const node = el('select', { onchange: () => pick(node.value) }, options.map(([value, name]) => el('option', { value, selected: value === now }, name)));
  return node;
}

let wide = 0;
new ResizeObserver(() => {
  if (wide === main.clientWidth) return;
  wide = main.clientWidth;
  redraw();
}).observe(main);

/** A canvas as wide as its place, drawn again whenever that or the theme changes. */
function drawn(canvas, draw) {
  const again = () => {
    const { clientWidth: w, clientHeight: h } = canvas, scale = Math.min(devicePixelRatio || 1, 2);
    if (!w || !h) return;
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(h * scale);
    const context = canvas.getContext('2d');
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, w, h);
    draw(context, w, h);
  };
  new ResizeObserver(again).observe(canvas);
  return onRedraw(again);
}
