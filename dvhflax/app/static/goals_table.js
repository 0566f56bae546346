// Goals: kept or missed, by how much; typed, pulled to, and saved as templates.

import * as api from './api.js';
import {byId, html, keepingFocus, setAttribute, setText} from './dom.js';
import {signed} from './format.js';
import {
  goalsBefore, ofPlans, rangeOfGoal, shownGoals, structureOfGoal,
} from './shown.js';
import {beforeNextFrame} from './store.js';

// What may be typed.
export const NOTATION = 'V70: volume at 70 Gy or more (V90%: of the prescription)' +
  '; D95: dose of 95 %; mean; max. In Gy, %, cc.';
// Title and explanation of each column.
const COLUMNS = [
  ['', ''], ['goal', NOTATION], ['is', 'of dose A'],
  ['room', 'by how much it is kept; negative where it is missed'],
  ['Δ to B', 'against dose B'], ['best', ''], ['', ''],
];

export function showGoals(store, desk) {
  const body = html('tbody', {});
  const sum = html('span', {class: 'goal-sum', role: 'status'});
  const added = html('input', {
    type: 'text', placeholder: 'add: rectum V70 <= 10%', 'aria-label': 'Add a goal',
    spellcheck: false, id: 'goal-added', title: NOTATION,
    onfocus: () => store.set({writing: true}),
    onblur: () => store.set({writing: false})});
  const form = html('form', {
    class: 'add-goal',
    onsubmit: async (event) => {
      event.preventDefault();
      const text = added.value.trim();
      if (!text || store.busy) return;
      if (await desk.goals([...store.session.goals, text], text)) {
        added.value = '';
        rows.at(-1)?.element.scrollIntoView({block: 'nearest'});
      }
    }}, added, html('button', {type: 'submit', class: 'quiet',
    'aria-label': 'Add the goal'}, '+'));
  byId('goals').append(
    html('div', {class: 'table-head'}, html('h3', {}, 'Goals'), sum,
      html('span', {class: 'spring'}), templatesMenu(store, desk)),
    html('div', {class: 'scroll'}, html('table', {}, body)), form);
  let rows = [];

  const numbers = beforeNextFrame(() => {
    if (!store.session) return;
    const goals = shownGoals(store), before = goalsBefore(store);
    const byText = new Map(goals.map((goal) => [goal.text, goal]));
    let kept = 0;
    rows.forEach((row) => {
      const goal = byText.get(row.text);
      if (goal?.met) kept++;
      const told = isTold(goal);
      setAttribute(row.element, 'data-met', told ? goal.met : 'unknown');
      setAttribute(row.element, 'title', goal?.fault ?? '');
      setText(row.sign, told ? (goal.met ? '✓' : '✗') : '·');
      setAttribute(row.sign, 'aria-label', told ?
        (goal.met ? 'kept' : 'missed') :
        `not known for this dose${goal?.fault ? `: ${goal.fault}` : ''}`);
      setText(row.achieved,
        told ? `${goal.achieved.toFixed(1)} ${goal.unit}` : '–');
      setText(row.by, told ? signed(goal.by) : '');
      const was = before.get(row.text);
      setText(row.was, told && isTold(was) ?
        signed(goal.achieved - was.achieved) : '');
      const range = rangeOfGoal(store, row.text);
      const best = range && bestOf(row.text, range);
      setText(row.best, typeof best === 'number' ? best.toFixed(1) : '');
      setAttribute(row.best, 'data-kept', range?.kept ?? '');
      row.best.title = range ? `${ofPlans(store)} have ${
        range.low.toFixed(1)} to ${range.high.toFixed(1)} ${range.unit}; ${
        range.kept} keep this goal` : '';
    });
    setText(sum, rows.length && goals.length ? `${kept} of ${rows.length} kept` : '');
    byId('goals').dataset.achieved = goals.map((g) =>
      (isTold(g) ? g.achieved.toFixed(3) : '')).join();
  });
  store.on(['session'], () => {
    const {session} = store;
    const key = session && JSON.stringify([session.session, session.goals]);
    if (!session || body.dataset.key === key) return;
    body.dataset.key = key;
    rows = session.goals.map((text, n) => makeRow(store, desk, text, n));
    const heads = html('tr', {class: 'column-heads'}, ...COLUMNS.map(
      ([text, title]) => html('th', {
        scope: 'col', class: text === 'goal' ? '' : 'number',
        title: text === 'best' ?
          `the best that one of ${ofPlans(store)} has` : title}, text)));
    const none = html('tr', {}, html('td', {class: 'empty'},
      'None yet: type one below, or load a template.'));
    keepingFocus(body, () => body.replaceChildren(...(rows.length ?
      [heads, ...rows.map((row) => row.element)] : [none])), added);
  });
  store.on(['session', 'doseA', 'doseB', 'preview'], numbers);
}

/** Whether a goal can be told of a dose: its structure may be absent. */
const isTold = (goal) => typeof goal?.achieved === 'number';

/** Of the values of plans that which is best by a goal; null of `=`. */
const bestOf = (text, {low, high}) =>
  (/[>≥]/.test(text) ? high : /[<≤]/.test(text) ? low : null);

function makeRow(store, desk, text, n) {
  let asking = false;
  const input = html('input', {
    type: 'text', value: text, class: 'goal-text', spellcheck: false,
    'aria-label': `Goal ${n + 1}`,
    onfocus: () => {
      const selected = structureOfGoal(store, text);
      store.set({writing: true, ...(selected < 0 ? {} : {selected})});
    },
    onblur: () => {
      store.set({writing: false});
      // What was refused is no goal: it does not stay beside the numbers.
      if (!asking) input.value = text;
    },
    onkeydown: (event) => {
      if (event.key === 'Escape') {
        input.value = text;
        input.blur();
      }
      if (event.key === 'Enter') {
        // Else the key presses the button that gets the focus.
        event.preventDefault();
        pull.focus();
      }
    },
    onchange: async () => {
      const value = input.value.trim();
      if (value === text) return;
      const goals = [...store.session.goals];
      if (value) goals[n] = value;
      else goals.splice(n, 1);
      asking = true;
      if (!await desk.goals(goals, value)) input.focus();
      asking = false;
    }});
  const pull = html('button', {
    type: 'button', class: 'quiet', title: 'Bend the curve to this goal',
    'aria-label': `Bend the curve to ${text}`,
    onclick: () => desk.pullTo(text)}, 'pull');
  const cell = (kind) => html('td', {class: `number ${kind}`});
  const row = {
    text, sign: html('span', {class: 'sign', role: 'img'}),
    achieved: cell('achieved'), by: cell('by'), was: cell('was'),
    best: cell('best')};
  row.element = html('tr', {'data-goal': text},
    html('td', {}, row.sign), html('td', {class: 'wide'}, input),
    row.achieved, row.by, row.was, row.best,
    html('td', {class: 'buttons'}, pull,
      html('button', {
        type: 'button', class: 'quiet icon', 'aria-label': `Remove ${text}`,
        title: 'Remove', onclick: () => desk.goals(
          store.session.goals.filter((_, m) => m !== n))}, '×')));
  return row;
}

/** What a template of this name is kept under: `my-goals` of `My goals!`. */
const keyOfName = (name) => name.normalize('NFKD').replace(/\p{M}/gu, '')
  .toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '');

function templatesMenu(store, desk) {
  const list = html('ul', {class: 'templates'});
  // Keys of the user's own, as they were read.
  const mine = new Set();
  const name = html('input', {
    type: 'text', placeholder: 'name', 'aria-label': 'Name of the template',
    maxlength: 40, oninput: () => setText(
      save, mine.has(keyOfName(name.value)) ? 'replace' : 'save')});
  const save = html('button', {type: 'submit', class: 'quiet'}, 'save');
  const menu = html('details', {class: 'menu'},
    html('summary', {}, 'Templates'),
    html('div', {class: 'menu-body'}, list, html('form', {
      class: 'add-goal',
      onsubmit: (event) => {
        event.preventDefault();
        const key = keyOfName(name.value);
        if (!key) {
          store.set({message: {kind: 'error', text:
            'a template needs a name with letters from a to z, or digits'}});
          return;
        }
        desk.run('saving the template', async () => {
          await api.saveTemplate(
            key, {name: name.value.trim(), goals: store.session.goals});
          name.value = '';
          setText(save, 'save');
          await read();
        });
      }}, name, save)));
  const keyOf = (template) => template.key ?? template.name;
  const read = async () => {
    const templates = await api.templates();
    mine.clear();
    for (const template of templates) {
      if (!template.built_in) mine.add(keyOf(template));
    }
    keepingFocus(list, () => list.replaceChildren(...templates.map(
      (template) => html('li', {}, html('button', {
        type: 'button', onclick: () => {
          menu.open = false;
          menu.querySelector('summary').focus();
          desk.goals(template.goals);
        }}, template.name, html('small', {}, `${template.goals.length} goals`)),
      template.built_in ? null : html('button', {
        type: 'button', class: 'quiet icon',
        'aria-label': `Delete ${template.name}`,
        onclick: () => desk.run('deleting the template', async () => {
          await api.deleteTemplate(keyOf(template));
          await read();
        })}, '×')))), name);
  };
  menu.addEventListener('toggle', () => {
    if (menu.open) desk.run('reading the templates', read);
  });
  return menu;
}
