// The start: patients, earlier sessions, a folder of one's own.

import {byId, html, setText} from './dom.js';
import {gy} from './format.js';
import {showNames} from './names_table.js';
import {
  chosenFiles, droppedFiles, importAgain, importFiles,
} from './upload.js';

export function showStart(store, desk) {
  const search = byId('patient-search');
  const list = () => {
    const wanted = search.value.trim().toLowerCase();
    const patients = store.patients.filter((p) =>
      p.label.toLowerCase().includes(wanted));
    byId('patient-list').replaceChildren(...patients.map(
      (patient) => patientChoice(patient, desk)));
    if (!patients.length) {
      byId('patient-list').append(html('li', {class: 'faint'},
        store.patients.length ? 'none of that name' : 'none yet'));
    }
  };
  search.addEventListener('input', list);
  store.on(['patients'], list);
  store.on(['sessions'], () => {
    byId('session-list').replaceChildren(...store.sessions.map((one) =>
      html('li', {}, html('button', {
        type: 'button', 'data-session': one.session,
        onclick: () => desk.resume(one.session)},
      html('b', {}, one.label),
      html('small', {}, `${one.steps} step${one.steps === 1 ? '' : 's'}`)))));
    if (!store.sessions.length) {
      byId('session-list').append(html('li', {class: 'faint'}, 'none yet'));
    }
  });
  byId('trail-file').addEventListener('change', async (event) => {
    const [file] = event.target.files;
    event.target.value = '';
    if (!file) return;
    const trail = await file.text();
    try {
      JSON.parse(trail);
    } catch {
      store.set({message: {kind: 'error',
        text: `${file.name} is not an audit trail: it is not JSON`}});
      return;
    }
    await desk.replay(trail);
  });
  showDrop(store, desk);
}

function patientChoice(patient, desk) {
  const facts = [
    typeof patient.prescription_gy === 'number' ?
      gy(patient.prescription_gy) : null,
    patient.plans ? `${patient.plans} plans` : null,
    patient.source === 'upload' ? 'your own' : null,
  ].filter(Boolean).join(' · ');
  return html('li', {}, html('button', {
    type: 'button', 'data-patient': patient.key,
    disabled: Boolean(patient.faults), title: patient.faults,
    onclick: () => desk.open(patient.key)},
  html('b', {}, patient.label), html('small', {}, patient.faults ?? facts)));
}

function showDrop(store, desk) {
  const drop = byId('drop');
  const start = byId('start');
  for (const name of ['dragenter', 'dragover']) {
    start.addEventListener(name, (event) => {
      event.preventDefault();
      drop.dataset.over = true;
    });
  }
  start.addEventListener('dragleave', (event) => {
    if (!start.contains(event.relatedTarget)) delete drop.dataset.over;
  });
  start.addEventListener('drop', async (event) => {
    event.preventDefault();
    delete drop.dataset.over;
    take(await droppedFiles(event.dataTransfer));
  });
  const report = byId('upload-report'), names = byId('upload-names');
  byId('folder').addEventListener('change', (event) => {
    const files = chosenFiles(event.target);
    event.target.value = '';
    take(files);
  });

  async function take(files) {
    if (!files.length) {
      store.set({message: {kind: 'error',
        text: 'there is no file in what was dropped'}});
      return;
    }
    report.hidden = names.hidden = true;
    byId('upload-patients').replaceChildren();
    await read((...asked) => importFiles(files, ...asked), files, {});
  }

  async function read(send, files, chosen) {
    const state = byId('upload-state');
    state.hidden = false;
    drop.dataset.state = 'busy';
    const prescription = Number(byId('upload-prescription').value);
    const went = await desk.run('importing the folder', async () => {
      const found = await send(
        {names: chosen, ...(prescription && {prescription_gy: prescription})},
        (share, text) => {
          setText(byId('upload-text'), text);
          if (share === null) byId('upload-progress').removeAttribute('value');
          else byId('upload-progress').value = share;
        });
      report.textContent = [...found.failed, found.report].filter(Boolean)
        .join('\n');
      report.hidden = false;
      showNames(names, found, chosen, (next) => read(
        (...asked) => importAgain(found.upload, files, ...asked), files, next));
      await desk.lists();
      byId('upload-patients').replaceChildren(...store.patients.filter((p) =>
        found.patients.includes(p.key)).map((p) => patientChoice(p, desk)));
    });
    state.hidden = true;
    drop.dataset.state = went ? 'done' : 'failed';
  }
}
