// The page, part by part, and where the reader is in it.
summary();
comparison();
front();
training();
if (!evaluation) {
  network();
  spikes();
  levels();
  energy();
}
errors();
if (!evaluation) {
  predictions();
  ir();
}
provenance();
theme();
const links = [...document.querySelectorAll('#contents a')];
const seen = new IntersectionObserver(entries => entries.forEach(entry => {
  if (!entry.isIntersecting) return;
  links.forEach(link => {
    if (link.hash === '#' + entry.target.id) {
      link.setAttribute('aria-current', 'true');
      const list = link.closest('ul'), x = link.offsetLeft - list.clientWidth / 2;
      list.scrollTo({ left: x, behavior: still.matches ? 'auto' : 'smooth' });
    } else link.removeAttribute('aria-current');
  });
}), { rootMargin: '-20% 0px -70% 0px' });
document.querySelectorAll('main > section').forEach(part => seen.observe(part));
// What a link names is there only now.
if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
document.documentElement.dataset.ready = 'true';
// What is printed is the page on white, with tables that are not too long.
let closed = [];
addEventListener('beforeprint', () => {
  document.documentElement.dataset.theme = 'light';
  redraw();
  closed = [...document.querySelectorAll('details:not([open]):not(.numbers)')].filter(node => node.querySelectorAll('tr').length <= 120);
  closed.forEach(node => { node.open = true; });
});
addEventListener('afterprint', () => {
  closed.forEach(node => { node.open = false; });
  theme();
});
