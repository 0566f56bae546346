// How doses are shown: which, which way, isodoses, wash, window.

import {barStops} from './colours.js';
import {byId, html, setText} from './dom.js';
import {doseLabel, idA, idB} from './shown.js';
import {beforeNextFrame} from './store.js';

const WINDOWS = {
  'soft tissue': {centre: 40, width: 400}, pelvis: {centre: 35, width: 300},
  bone: {centre: 400, width: 1800}, lung: {centre: -600, width: 1500},
};

export function showDisplay(store, desk) {
  for (const input of document.querySelectorAll('[name=view]')) {
    input.addEventListener('change', () => store.set({view: input.value}));
  }
  showChoices(store, desk);
  showLegend(store);
}

function showChoices(store, desk) {
  const [a, b] = [byId('dose-a'), byId('dose-b')];
  a.addEventListener('change', () => desk.choose({chosenA: a.value || null}));
  b.addEventListener('change', () => desk.choose({chosenB: b.value}));
  store.on(['session', 'chosenA', 'chosenB', 'doseB'], () => {
    const {session} = store;
    if (!session) return;
    const doses = session.doses.map(({id}) => [id, doseLabel(store, id)]);
    const fill = (select, first, chosen) => {
      select.replaceChildren(...[...first, ...doses].map(([value, label]) =>
        html('option', {value, selected: value === chosen}, label)));
      select.value = chosen;
    };
    fill(a, [['', 'current step']], store.chosenA ?? '');
    fill(b, [['before', 'step before'], ['none', 'nothing']], store.chosenB);
    const none = !idB(store);
    for (const value of ['difference', 'beside']) {
      document.querySelector(`[name=view][value=${value}]`).disabled = none;
    }
    if (none && store.view !== 'dose') {
      document.querySelector('[name=view][value=dose]').checked = true;
      store.set({view: 'dose'});
    }
    setText(byId('key-before'), store.chosenB === 'before' ? 'step before' :
      none ? 'nothing' : `B: ${doseLabel(store, idB(store))}`);
    byId('dose').dataset.a = idA(store);
    byId('dose').dataset.b = idB(store) ?? '';
  });
}

function showLegend(store) {
  const change = (values) => store.set(
    {display: {...store.display, ...values}});
  const title = html('h3', {});
  const bar = html('div', {class: 'colour-bar', 'aria-hidden': 'true'});
  const ends = html('div', {class: 'colour-ends'},
    html('span', {}), html('span', {}), html('span', {}));
  const rows = html('ul', {class: 'isodoses'});
  const check = (label, key) => html('label', {class: 'check'}, html('input', {
    type: 'checkbox', checked: store.display[key],
    onchange: (event) => change({[key]: event.target.checked})}), label);
  const wash = html('input', {
    type: 'range', min: 0, max: 100, value: 100 * store.display.wash,
    'aria-label': 'Opacity of the dose wash',
    oninput: () => change({wash: wash.value / 100})});
  const level = (label, key) => html('label', {}, label, html('input', {
    type: 'number', step: 10, min: key === 'width' ? 1 : -1024, max: 3071,
    'data-window': key, 'aria-label': `Window ${key} in HU`,
    onchange: (event) => {
      const value = Number(event.target.value);
      if (!Number.isFinite(value)) return;
      change({window: {...store.display.window,
        [key]: key === 'width' ? Math.max(value, 1) : value}});
    }}));
  const preset = html('select', {
    'aria-label': 'Window of the CT',
    onchange: () => {
      if (WINDOWS[preset.value]) change({window: WINDOWS[preset.value]});
    }}, ...[...Object.keys(WINDOWS), 'own'].map((name) =>
    html('option', {value: name}, name)));
  const ct = html('div', {class: 'ct-window'}, preset,
    html('div', {class: 'levels'}, level('L', 'centre'), level('W', 'width')));
  const add = html('button', {
    type: 'button', class: 'quiet add', 'aria-label': 'Add an isodose',
    onclick: () => change({levels: [...store.display.levels,
      {percent: 60, colour: '#e8e8e8', shown: true}]})}, '+ isodose');
  byId('legend').append(
    title, rows, add,
    html('div', {class: 'wash'}, bar, ends,
      html('label', {}, 'wash', wash)),
    html('div', {class: 'checks'}, check('lines', 'isodoses'),
      check('contours', 'contours')),
    ct);

  let shown = null;
  // What a level became, which keeps the focus wherever it goes.
  const became = new WeakMap();
  const paintRows = beforeNextFrame(() => {
    const {session, display} = store;
    if (!session) return;
    const controls = (row) => [...row?.children ?? []];
    const row = [...rows.children].findIndex((one) =>
      one.contains(document.activeElement));
    const column = controls(rows.children[row]).indexOf(document.activeElement);
    const focused = shown?.[row];
    shown = display.levels;
    rows.dataset.of = session.session;
    rows.replaceChildren(...display.levels.map((one, n) =>
      isodoseRow(one, session.patient.prescription_gy, (values) => {
        const changed = {...one, ...values};
        became.set(one, changed);
        const levels = display.levels.map((l, m) => (
          m === n ? changed : l)).filter((l) => l.percent > 0);
        change({levels: levels.sort((a, b) => b.percent - a.percent)});
      })));
    if (!focused) return;
    const now = shown.indexOf(became.get(focused) ?? focused);
    (controls(rows.children[now])[column] ?? add).focus({preventScroll: true});
  });
  store.on(['session', 'display'], () => {
    const {session, display} = store;
    if (!session) return;
    ct.hidden = !session.has_ct;
    for (const input of ct.querySelectorAll('[data-window]')) {
      input.value = display.window[input.dataset.window];
    }
    preset.value = Object.keys(WINDOWS).find((name) =>
      WINDOWS[name].centre === display.window.centre &&
      WINDOWS[name].width === display.window.width) ?? 'own';
    // Not while one of them is typed in.
    if (shown === display.levels && rows.dataset.of === session.session) return;
    paintRows();
  });
  store.on(['session', 'view', 'differenceGy', 'doseB'], () => {
    if (!store.session) return;
    const difference = store.view === 'difference' && store.doseB;
    setText(title, 'Isodoses');
    bar.style.background = `linear-gradient(to right, ${
      barStops(difference).map(([share, colour]) =>
        `${colour} ${100 * share}%`).join(', ')})`;
    const most = 1.1 * store.session.patient.prescription_gy;
    const texts = difference ?
      [`−${store.differenceGy}`, '0', `+${store.differenceGy} Gy`] :
      ['0', (most / 2).toFixed(0), `${most.toFixed(0)} Gy`];
    [...ends.children].forEach((end, n) => setText(end, texts[n]));
  });
}

function isodoseRow({percent, colour, shown}, prescriptionGy, change) {
  return html('li', {},
    html('input', {
      type: 'checkbox', checked: shown, 'aria-label': `Show ${percent} %`,
      onchange: (event) => change({shown: event.target.checked})}),
    html('input', {
      type: 'color', value: colour, 'aria-label': `Colour of ${percent} %`,
      onchange: (event) => change({colour: event.target.value})}),
    html('input', {
      type: 'number', min: 0, max: 150, step: 1, value: percent,
      'aria-label': 'Isodose in % of the prescription',
      title: '0 removes it',
      onchange: (event) => change({percent: Math.min(
        Math.max(Number(event.target.value) || 0, 0), 150)})}),
    html('span', {class: 'faint'}, '%'),
    html('span', {class: 'gy'}, (percent * prescriptionGy / 100).toFixed(1)));
}
