// Structures: shown or hidden, locked or free, and their mean doses.

import {meanDose} from './curves.js';
import {byId, html, setAttribute, setText, svg} from './dom.js';
import {cc, readable, signed} from './format.js';
import {markPath} from './marks.js';
import {shownCurves, shownMeans} from './shown.js';
import {beforeNextFrame} from './store.js';

export function showStructures(store, desk) {
  const body = html('tbody', {});
  byId('structures').append(html('table', {},
    html('thead', {}, html('tr', {},
      html('th', {scope: 'col'}, html('span', {class: 'unseen'}, 'shown')),
      html('th', {scope: 'col'}, 'Structure'),
      html('th', {scope: 'col', class: 'number'}, 'mean Gy'),
      html('th', {scope: 'col', class: 'number', title: 'against dose B'}, 'Δ to B'),
      html('th', {scope: 'col', title: 'Lock: not worse than now'}, 'lock'))),
    body));
  let rows = [];

  const numbers = beforeNextFrame(() => {
    if (!store.session || !store.doseA || !rows.length) return;
    const {desired} = shownCurves(store);
    const [means, before] = shownMeans(store);
    rows.forEach((row, s) => {
      const mean = means?.[s] ?? null;
      setText(row.mean, mean === null ? '–' : mean.toFixed(1));
      row.mean.title = desired?.[s] ?
        `desired ${meanDose(desired[s]).toFixed(1)} Gy` : '';
      const was = before?.[s] ?? null;
      const change = mean !== null && was !== null ? mean - was : null;
      setText(row.change, change === null ? '' : signed(change));
      const {role} = store.session.structures[s];
      const better = role === 'target' ? 0 : -Math.sign(Math.round(change * 10));
      setAttribute(row.change, 'class', `number change ${
        change === null || !better ? '' : better > 0 ? 'better' : 'worse'}`);
    });
  });

  store.on(['session', 'colours'], () => {
    const {session} = store;
    const key = session && JSON.stringify(
      [session.session, session.structures, store.colours]);
    if (!session || body.dataset.key === key) return;
    body.dataset.key = key;
    rows = session.structures.map((structure, s) =>
      makeRow(store, desk, structure, s));
    body.replaceChildren(...rows.map((row) => row.element));
  });
  store.on(['session', 'visible', 'selected', 'colours'], () => {
    const {session, visible, selected} = store;
    if (!session) return;
    rows.forEach((row, s) => {
      const {name} = session.structures[s];
      const locked = session.locked.includes(name);
      setAttribute(row.element, 'class', s === selected ? 'selected' : '');
      setAttribute(row.shown, 'aria-pressed', Boolean(visible[s]));
      setAttribute(row.lock, 'aria-pressed', locked);
      setAttribute(row.name, 'aria-current', s === selected);
    });
  });
  store.on(['session', 'doseA', 'doseB', 'preview'], numbers);
}

function makeRow(store, desk, structure, s) {
  const label = readable(structure.name);
  const colour = store.colours[s];
  const shown = html('button', {
    type: 'button', class: `swatch of-${s}`, 'aria-label': `Show ${label}`,
    title: 'Show or hide; Shift or Alt: this one alone', disabled: !structure.present,
    onclick: (event) => {
      // Alt with a key is the system's.
      const alone = event.altKey || event.shiftKey;
      store.set({visible: store.visible.map((is, n) => (
        alone ? n === s : n === s ? !is : is))});
    }}, svg('svg', {viewBox: '-8 -8 16 16', 'aria-hidden': 'true'},
    svg('path', {d: markPath(colour.mark, 0, 0, 5.5)})));
  const name = html('button', {
    type: 'button', class: 'name', disabled: !structure.present,
    title: structure.present ? `${cc(structure.volume_cc)}${
      structure.cut_off ? ', reaches beyond the grid' : ''}` : 'not contoured',
    onclick: () => store.set({selected: s})}, label);
  const lock = html('button', {
    type: 'button', class: 'lock quiet', disabled: !structure.present,
    'aria-label': `Lock ${label}`, title: 'Lock: not worse than now',
    onclick: () => {
      const {locked} = store.session;
      desk.lock(locked.includes(structure.name) ?
        locked.filter((n) => n !== structure.name) :
        [...locked, structure.name]);
    }}, svg('svg', {viewBox: '0 0 16 16', 'aria-hidden': 'true'},
    svg('rect', {x: 3, y: 7, width: 10, height: 7, rx: 1.5}),
    svg('path', {class: 'open', d: 'M5.5 7V5a2.7 2.7 0 0 1 5.2-1'}),
    svg('path', {class: 'closed', d: 'M5.5 7V5a2.5 2.5 0 0 1 5 0v2'})));
  const mean = html('td', {class: 'number'});
  const change = html('td', {class: 'number'});
  const element = html('tr', {'data-structure': structure.name},
    html('td', {}, shown), html('th', {scope: 'row'}, name), mean, change,
    html('td', {}, lock));
  return {element, shown, name, lock, mean, change};
}
