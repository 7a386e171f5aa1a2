// The page, part by part, and where the reader is in it.
summary();
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
document.documentElement.dataset.ready = 'true';
