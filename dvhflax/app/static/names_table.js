// Which name in the files of a drop is which structure: a choice for each that
// the network wants.

import {html} from './dom.js';

/**
 * Shows the choices.
 *
 * @param place to be filled; hidden where there are no names
 * @param found the import's `{structures, names, failed}`
 * @param chosen patterns by structure that the import was asked for
 * @param again imports once more, with patterns by structure
 */
export function showNames(place, {structures, names, failed}, chosen, again) {
  const all = counted(names.flatMap(({found}) => [...new Set(found)]));
  place.hidden = !all.size;
  place.open = names.some((one) => structures.some((s) => !one.taken[s.name]) &&
    one.found.some((name) => !Object.values(one.taken).includes(name))) &&
    Boolean(failed.length || !Object.keys(chosen).length);
  const told = ([name, count]) => (
    count < names.length ? `${name} (${count} of ${names.length})` : name);
  const selects = structures.map(({name, role, needed}) => {
    const taken = counted(names.map((one) => one.taken[name]).filter(Boolean));
    const lacking = role === 'body' ? 'from the CT, if any' :
      needed ? 'choose' : 'none';
    const whole = (other) => taken.get(other) === names.length;
    const amiss = needed && names.some((one) => !one.taken[name]);
    return html('select', {id: `name-of-${name}`, data: {structure: name},
      'aria-invalid': amiss && role !== 'body' && 'true'},
      html('option', {value: ''}, [...taken].map(told).join(', ') || lacking),
      ...[...all].filter(([other]) => !whole(other)).map((one) =>
        html('option', {value: `=${one[0]}`}, told(one))),
      taken.size && !needed ? html('option', {value: '='}, 'none') : null);
  });
  const button = html('button', {class: 'button'}, 'Import again');
  place.querySelector('form').replaceWith(html('form', {
    onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      const picked = Object.fromEntries(selects.filter((s) => s.value).map(
        (s) => [s.dataset.structure, s.value]));
      await again(withPicked(chosen, picked));
      button.disabled = false;
      // The form is another one now.
      const next = place.querySelector('[aria-invalid]');
      (next ?? place.querySelector('summary')).focus();
    }},
  html('table', {}, html('tbody', {}, ...selects.map((select) =>
    html('tr', {}, html('th', {scope: 'row'}, html('label', {for: select.id},
      select.dataset.structure)), html('td', {}, select))))),
  button));
}

/** Earlier choices stay for patients without the name that is picked now. */
function withPicked(chosen, picked) {
  const now = Object.values(picked).filter((pattern) => pattern !== '=');
  const next = Object.fromEntries(Object.entries(chosen).map(
    ([name, patterns]) => [name, patterns.filter((p) => !now.includes(p))]));
  for (const [name, pattern] of Object.entries(picked)) {
    const earlier = (next[name] ?? []).filter((p) => p !== '=');
    next[name] = pattern === '=' ? ['='] : [pattern, ...earlier];
  }
  return next;
}

function counted(names) {
  const counts = new Map();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
}
