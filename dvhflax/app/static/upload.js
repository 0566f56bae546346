// Folders that are dropped or chosen: their files go to the server on this
// computer, which imports them.

import * as api from './api.js';

const AT_A_TIME = 4;

/** `[{path, file}]` of what was dropped. Must be called within the event. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.())
    .filter(Boolean);
  const found = [];
  const walk = async (entry, path) => {
    if (entry.isFile) {
      const file = await new Promise((done, fail) => entry.file(done, fail));
      found.push({path, file});
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, fail) =>
        reader.readEntries(done, fail));
      if (!some.length) return;
      for (const one of some) await walk(one, `${path}/${one.name}`);
    }
  };
  for (const entry of entries) await walk(entry, entry.name);
  return asSent(found);
}

/** The same of a chosen folder. */
export function chosenFiles(input) {
  return asSent([...input.files].map((file) => (
    {path: file.webkitRelativePath || file.name, file})));
}

// The folder's own name, often a patient's, is sent only where it is the id:
// DICOM has its own.
function asSent(files) {
  if (kindOf(files) === 'nifti') return files;
  const folders = new Set(files.map(({path}) => path.split('/')[0]));
  if (folders.size !== 1 || files.some(({path}) => !path.includes('/'))) {
    return files;
  }
  return files.map(({path, file}) => (
    {path: path.slice(path.indexOf('/') + 1), file}));
}

/** `nifti` or `dicom`, by the names of files. */
export function kindOf(files) {
  return files.some(({path}) => /\.nii(\.gz)?$/i.test(path)) ? 'nifti' : 'dicom';
}

/**
 * Sends files and imports them.
 *
 * @param told (share of the bytes, text) on the way
 * @return the import's answer, and its `upload`
 */
export async function importFiles(files, options, told) {
  const {upload} = await api.startUpload(kindOf(files));
  try {
    const all = files.reduce((sum, {file}) => sum + file.size, 0) || 1;
    let sent = 0, next = 0;
    const work = async () => {
      while (next < files.length) {
        const {path, file} = files[next++];
        await api.uploadFile(upload, path, file);
        sent += file.size;
        told(sent / all, `${files.length} files`);
      }
    };
    await Promise.all(Array.from({length: AT_A_TIME}, work));
    told(null, 'importing');
    return {upload, ...await api.importUpload(upload, options)};
  } catch (error) {
    await api.deleteUpload(upload).catch(() => null);
    throw error;
  }
}

/** Imports what was sent once more; sends it again only where it is gone. */
export async function importAgain(upload, files, options, told) {
  told(null, 'importing');
  try {
    return {upload, ...await api.importUpload(upload, options)};
  } catch (error) {
    if (error.status !== 404) throw error;
    return importFiles(files, options, told);
  }
}
