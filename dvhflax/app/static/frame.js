// The frame of the page: who it is, themes, export, banners and messages.

import * as api from './api.js';
import {byId, html, setText} from './dom.js';
import {gy} from './format.js';
import {doseLabel, idA} from './shown.js';

const THEME = 'dvhflax-theme';
const BANNERS = {
  lost: 'The server does not answer. The session is kept; the page goes on ' +
    'by itself once `dvhflax app` runs again.',
  'locked out': 'This page is no longer let in: open the address that ' +
    '`dvhflax app` printed.',
};

export function showFrame(store, desk) {
  showTheme(store);
  byId('to-start').addEventListener('click', () => {
    desk.leave();
    byId('patient-search').focus();
    desk.lists();
  });
  store.on(['session', 'about'], () => {
    const {session, about} = store;
    // What was pressed to open a patient is gone: on from the top of the work.
    const opens = session && byId('work').hidden;
    byId('start').hidden = Boolean(session);
    byId('work').hidden = !session;
    byId('to-start').hidden = byId('export').hidden = !session;
    setText(byId('who'), session ? session.patient.label : 'Choose a patient');
    const network = about ? `${about.network.name}` : '';
    setText(byId('what'), session ?
      `${gy(session.patient.prescription_gy)} prescribed · ${network}` :
      network);
    if (opens) byId('who').focus();
  });
  store.on(['colours'], () => {
    store.colours.forEach((colour, s) => document.documentElement.style
      .setProperty(`--of-${s}`, `light-dark(${colour.light}, ${colour.dark})`));
  });
  store.on(['connection'], () => {
    const text = BANNERS[store.connection];
    byId('banner').hidden = !text;
    setText(byId('banner'), text ?? '');
  });
  store.on(['message', 'busy'], () => {
    const {message, busy} = store;
    byId('messages').replaceChildren(...[
      message && html('p', {class: `message ${message.kind}`, role: 'alert'},
        message.text,
        html('button', {
          type: 'button', class: 'quiet icon', 'aria-label': 'Close',
          onclick: () => store.set({message: null})}, '×')),
      busy && html('p', {class: 'message busy'}, `${busy} …`),
    ].filter(Boolean));
  });
  showExport(store, desk);
  // Menus close when one goes elsewhere or presses Escape.
  document.addEventListener('pointerdown', (event) => closeMenus(event.target));
  document.addEventListener('focusin', (event) => closeMenus(event.target));
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      closeMenus(null);
      if (store.message) store.set({message: null});
    }
    const typing = event.target.closest?.('input, select, textarea');
    if (!store.session || typing || store.busy || store.dragging) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z') {
      event.preventDefault();
      if (event.shiftKey) { if (store.session.can_redo) desk.redo(); }
      else if (store.session.can_undo) desk.undo();
    }
  });
}

function closeMenus(target) {
  for (const menu of document.querySelectorAll('details.menu[open]')) {
    if (menu.contains(target)) continue;
    const within = menu.contains(document.activeElement);
    menu.open = false;
    if (within) menu.querySelector('summary').focus();
  }
}

function showTheme(store) {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const button = byId('theme');
  const apply = () => {
    const chosen = localStorage.getItem(THEME);
    const theme = chosen ?? (system.matches ? 'dark' : 'light');
    document.documentElement.dataset.theme = theme;
    setText(button, theme === 'dark' ? '☀' : '☾');
    const label = theme === 'dark' ? 'Light page' : 'Dark page';
    button.setAttribute('aria-label', label);
    button.title = label;
    store.set({theme});
  };
  button.addEventListener('click', () => {
    localStorage.setItem(THEME, store.theme === 'dark' ? 'light' : 'dark');
    apply();
  });
  system.addEventListener('change', apply);
  apply();
}

function showExport(store, desk) {
  const menu = byId('export');
  menu.addEventListener('toggle', () => {
    if (menu.open) setText(byId('export-of'), doseLabel(store, idA(store)));
  });
  for (const button of menu.querySelectorAll('button')) {
    button.addEventListener('click', () => {
      closeMenus(null);
      const {what} = button.dataset;
      const root = `/sessions/${encodeURIComponent(store.session.session)}`;
      desk.run('writing the export', async () => save(await api.download(
        what === 'trail' ? `${root}/trail` :
          `${root}/export?what=${what}&dose=${encodeURIComponent(idA(store))}`)));
    });
  }
}

function save({blob, name}) {
  const address = URL.createObjectURL(blob);
  const link = html('a', {href: address, download: readableFile(name)});
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

const readableFile = (name) => name.replace(/[/\\]/g, '_');
