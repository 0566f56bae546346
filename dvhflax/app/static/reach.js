// How far wish and answer are from what can be had, and what is in the way.

import {byId, html, setText} from './dom.js';
import {readable} from './format.js';
import {NOTATION} from './goals_table.js';
import {
  currentStep, ofPlans, onCurrent, shownDistance, shownLocks,
} from './shown.js';
import {beforeNextFrame} from './store.js';

export function showReach(store) {
  const line = byId('reach');
  const sentence = html('span', {class: 'sentence'});
  const bar = html('span', {class: 'share-bar', 'aria-hidden': 'true'});
  line.append(bar, sentence);

  const paint = beforeNextFrame(() => {
    const {session} = store;
    if (!session) return;
    const distance = shownDistance(store);
    bar.hidden = !distance?.share;
    if (!distance) {
      setText(sentence, `Band: ${ofPlans(store)}.`);
      return;
    }
    const {worse, held} = shownLocks(store);
    const locks = worse.length ?
      `Worse than its lock: ${worse.map(readable).join(', ')}. ` :
      held && held.share < 1 ? `${readable(held.by || 'a lock')} held: the ` +
        `wish was taken ${(100 * held.share).toFixed(0)} % of the way. ` : '';
    line.dataset.worse = Boolean(worse.length);
    const off = ['wish', 'answer'].filter(
      (kind) => typeof distance[kind] === 'number').map(
      (kind) => `${kind} ${distance[kind].toFixed(2)}`).join(', ');
    const blocking = !distance.in_reach && distance.stands_in_the_way;
    const verdict = blocking ? `In the way: ${readable(blocking)}. ` :
      distance.in_reach ? 'Within reach. ' : '';
    setText(sentence, `${locks}${verdict}${off || '–'} off ${
      ofPlans(store)} (usual ≤ ${session.can_have.usual.toFixed(2)}).`);
    sentence.title = `${sentence.textContent}\n${held?.why ? `${held.why}\n` : ''}` +
      'L1 distance of all curves to the nearest of these plans. Usual: 95 % ' +
      'of the plans are as near to another one.';
    line.dataset.wish = distance.wish;
    if (!distance.share) return;
    const parts = session.structures.map((s, n) =>
      [n, Math.max(distance.share[s.name] ?? 0, 0), s.name]);
    const sum = parts.reduce((all, [, part]) => all + part, 0) || 1;
    bar.replaceChildren(...parts.filter(([, part]) => part / sum > 0.01).map(
      ([n, part, name]) => {
        const piece = html('i', {class: `of-${n}`, title:
          `${readable(name)}: ${(100 * part / sum).toFixed(0)} % of it`});
        piece.style.flexGrow = part;
        return piece;
      }));
  });
  store.on(['session', 'preview', 'doseA'], paint);

  const hint = byId('pull-hint');
  store.on(['session', 'chosenA', 'from', 'writing'], () => {
    if (!store.session) return;
    setText(hint, store.writing ? NOTATION : !onCurrent(store) ?
      'An earlier dose is looked at: handles are on the current step.' :
      !currentStep(store).desired && store.from === 'desired' ?
        'No wish yet: pull a handle of an achieved curve, or type a goal.' :
        'Pull a handle; double click or + adds one, Delete lets it go, ' +
        'arrows move it (Shift: more), Escape takes it back.');
  });
}
