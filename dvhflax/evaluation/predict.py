"""Predicts for patients of the cohort, or for one's own, and writes folders."""

from collections.abc import Iterator
import dataclasses
import os

from dvhflax import errors, files
from dvhflax.cohort import place
from dvhflax.io import import_report
from dvhflax.report import prediction
from dvhflax.report.folder_names import folder_name
from dvhflax.training import remote
from dvhflax.training.bundle import is_bundle
from dvhflax.training.runs import load_networks
from dvhflax.tuning import wish, wish_file
from dvhflax.tuning.external import ExternalPatients
from dvhflax.tuning.session import Session
from dvhflax.tuning.steps import Step


@dataclasses.dataclass(frozen=True)
class Predicted:
  """A patient's dose, as it was written.

  Attributes:
    session: of the patient; it can be tuned further afterwards.
    step: the dose.
    folder: what was written, see `prediction.write`.
  """

  session: Session
  step: Step
  folder: str


def predict_all(
  workdir: str,
  *,
  patient: str | None = None,
  dicom: str | None = None,
  nifti: str | None = None,
  names: str | None = None,
  prescription_gy: float | None = None,
  cohort: str | None = None,
  anatomy_workdir: str | None = None,
  checkpoint: str = 'best',
  wished: str | None = None,
  points: str | None = None,
  who: str | None = None,
  output: str | None = None,
  grid: str = 'cohort',
  rtdose_bits: int = 32,
) -> Iterator[Predicted]:
  """Predicts one patient after another; generates each once it is written.

  It is an iterator: `list(predict_all(...))` predicts for all.

  A patient who cannot be predicted for does not stop the others.

  Args:
    workdir: path or URL of a training run, or path of a bundle.
    patient: id, of the cohort or in the folder; None: all of the folder.
    dicom, nifti: folder of patients from outside; at most one of the two.
    names, prescription_gy: of those, see `ExternalPatients`.
    cohort: the cohort store, if it moved since training.
    anatomy_workdir: an anatomy-only run, for the first dose.
    checkpoint: `best`, `latest` or a saved step's number.
    wished, points: see `predict`.
    who: name for the audit trail.
    output: folder of the one patient, or that holds a folder for each of
      several; None: `predictions` in the workdir, for a bundle
        and a URL `predictions/NAME` in the current folder, which does the
        latter.
    grid, rtdose_bits: see `prediction.write`.

  Raises:
    UserError: for an impossible request; and at the end, who could not be
      predicted for and why.
  """
  folders = {'dicom': dicom, 'nifti': nifti}
  given = {source: folder for source, folder in folders.items() if folder}
  if not workdir or len(given) > 1 or not (given or patient):
    raise errors.UserError(
      'give a run, --workdir, or a network that comes with dvhflax, --network, '
      'and patients to predict for: --patient of its cohort, or a folder, '
      '--dicom or --nifti'
    )
  if not given and (names or prescription_gy is not None):
    raise errors.UserError(
      '--names and --prescription_gy are for patients of --dicom or --nifti; '
      f'{patient} is one of the cohort, which knows both'
    )
  remote.require_folder(output, '--output')
  network, store, anatomy = load_networks(
    workdir, checkpoint, cohort, anatomy_workdir
  )
  external = None
  for source, folder in given.items():
    external = ExternalPatients(
      source, folder, store, prescription_gy=prescription_gy, names=names
    )
  ids = [patient] if patient else external.ids if external else []
  parent = output or os.path.join(workdir, 'predictions')
  if not output and (is_bundle(workdir) or place.is_url(workdir)):
    # A bundle is not written into: it may lie among installed packages.
    parent = os.path.join('predictions', network.identity['workdir'])
  failures = []
  for one in ids:
    folder = parent
    if len(ids) > 1 or not output:
      folder = os.path.join(parent, folder_name(one, ids, parent))
    try:
      read, entry = external.read(one) if external else (one, None)
      session = Session(network, store, read, anatomy, who)
      step = predict(session, wished, points)
      prediction.write(
        session, step, folder, grid=grid, rtdose_bits=rtdose_bits
      )
    except errors.UserError as error:
      failures.append(str(error))
      continue
    if external and entry:
      files.write_text(
        os.path.join(folder, 'import.txt'),
        import_report.report_text([entry], external.skipped),
      )
    yield Predicted(session, step, folder)
  if failures:
    raise errors.UserError('; '.join(failures))


def predict(session: Session, wished: str | None, points: str | None) -> Step:
  """The dose for a wish, as a file or another plan gives it, and for points.

  Args:
    session: a new one; the dose is added to it.
    wished: a file of curves, or `plan:PATIENT/NUMBER` of the cohort; None: the
      first dose.
    points: in clinicians' notation, separated by semicolons; they bend the
      curves of `wished`, or else the DVH of the first dose.

  Raises:
    WishError: for a wish that is impossible or cannot be read.
  """
  if wished is None:
    step = session.first_dose()
    return session.tune(points) if points else step
  if wished.startswith('plan:'):
    patient, _, number = wished.removeprefix('plan:').rpartition('/')
    if not number.isdecimal():
      raise errors.WishError(f'{wished!r}: write plan:PATIENT/NUMBER')
    curves, reference = wish.from_plan(
      session.cohort,
      patient,
      int(number),
      session.present,
      session.record.prescription_gy,
    )
    return session.tune(points or (), curves=curves, reference_gy=reference.gy)
  given = wish_file.read_curves(wished, session.record.prescription_gy)
  return session.tune(points or (), curves=given)
