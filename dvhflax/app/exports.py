"""A dose as a file to take away. No name of a file has the patient's."""

from collections.abc import Sequence
import dataclasses
import importlib.util
import pathlib
import tempfile
from typing import TYPE_CHECKING, Literal

import numpy as np

from dvhflax import errors
from dvhflax.app.state import step_name
from dvhflax.dose_volume import Curve
from dvhflax.io import placement
from dvhflax.io.resample import Dose
from dvhflax.normalisation import DoseReference
from dvhflax.tuning import plan_metrics
from dvhflax.tuning.goals import GoalResult
from dvhflax.tuning.session import Session
from dvhflax.tuning.steps import Step
from dvhflax.tuning.trail import USE

# matplotlib, half a second, is for exports alone: the page is not to wait.
if TYPE_CHECKING:
  from dvhflax.report.dose_report import DoseReport

What = Literal['rtdose', 'nifti', 'pdf', 'html', 'csv']
# Ending and media type.
KINDS: dict[What, tuple[str, str]] = {
  'rtdose': ('.dcm', 'application/dicom'),
  'nifti': ('.nii.gz', 'application/gzip'),
  'pdf': ('.pdf', 'application/pdf'),
  'html': ('.html', 'text/html'),
  'csv': ('.csv', 'text/csv'),
}
_LIBRARIES = {'rtdose': ('pydicom', 'dicom'), 'nifti': ('nibabel', 'nifti')}


@dataclasses.dataclass(frozen=True)
class Asked:
  """A dose that is exported.

  Attributes:
    session: of it.
    name: one of the state's `doses`.
    dose_gy: `[X, Y, Z]`.
    step: that it is of, or that the deliverable dose is for; None for a plan,
      and for a step that was undone.
    ct: `[X, Y, Z]` HU, None without one.
    goals: what it has of them.
  """

  session: Session
  name: str
  dose_gy: np.ndarray
  step: Step | None
  ct: np.ndarray | None
  goals: Sequence[GoalResult]

  @property
  def kind(self) -> str:
    """`step`, which the network predicted, `deliverable` or `plan`."""
    return self.name.rpartition('-')[0]

  @property
  def number(self) -> int:
    """Of the step or the plan."""
    return int(self.name.rpartition('-')[2])

  @property
  def title(self) -> str:
    """For people."""
    if self.kind == 'plan':
      return f'Plan {self.number}'
    name = step_name(self.step) if self.step else f'Step {self.number}'
    return name if self.kind == 'step' else f'{name}, deliverable'


def content(what: What, asked: Asked) -> bytes:
  """The bytes of the file.

  Raises:
    UserError: if a library is missing, or the dose cannot be written.
  """
  library, extra = _LIBRARIES.get(what, ('', ''))
  if library and not importlib.util.find_spec(library):
    raise errors.ConfigError(
      f"this file needs {library}: pip install 'dvhflax[{extra}]'"
    )
  with tempfile.TemporaryDirectory(prefix='dvhflax-') as folder:
    path = pathlib.Path(folder, f'dose{KINDS[what][0]}')
    if what == 'rtdose':
      _write_rtdose(path, asked)
    elif what == 'nifti':
      placement.write_nifti(path, _placed(asked), USE)
    else:
      from dvhflax.report import dose_report

      write = {
        'pdf': dose_report.write_pdf,
        'html': dose_report.write_html,
        'csv': dose_report.write_csv,
      }[what]
      write(path, report_of(asked))
    return path.read_bytes()


def report_of(asked: Asked) -> 'DoseReport':
  """What a report has to know."""
  from dvhflax.report.dose_report import DoseReport

  session, step = asked.session, asked.step
  record, cohort = session.record, session.cohort
  prescribed = DoseReference.of_prescription(record.prescription_gy)
  desired: dict[str, Curve] = {}
  wished = step.wished_dvh if step is not None else None
  if step is not None and wished is not None:
    for structure, vector in zip(cohort.structures, wished):
      if vector.any():
        curve = cohort.dvh_spec.curve(vector)
        dose_gy = step.desired_reference.to_gy(curve.dose)
        desired[structure.name] = Curve(dose_gy, curve.volume)
  network = session.identity['network']
  source = {
    'plan': 'A plan of the patient',
    'deliverable': 'The deliverable dose that is nearest to a predicted one',
  }.get(asked.kind, 'A predicted dose')
  facts = [
    f'{source}. Network {network["workdir"]}, step {network["step"]}, weights '
    f'{network["weights_sha256"][:16]}'
  ]
  if step is not None:
    facts.append(f'Made {step.time}')
    facts += [f'Asked for: {point["asked"]}' for point in step.points]
  return DoseReport(
    title=asked.title,
    patient=record.id,
    prescription_gy=record.prescription_gy,
    facts=facts,
    note=step.note if step is not None else '',
    dose_gy=asked.dose_gy,
    masks=session.masks,
    structures=cohort.structures,
    spacing_mm=record.spacing_mm,
    ct=asked.ct,
    desired=desired,
    goals=asked.goals,
    achieved=plan_metrics.achieved(
      prescribed.to_fraction(asked.dose_gy),
      session.masks,
      cohort.structures,
      prescribed,
    ),
    wished=None
    if step is None or wished is None
    else step.metrics.get('desired'),
  )


def _placed(asked: Asked) -> Dose:
  record = asked.session.record
  return placement.on_cohort_grid(
    asked.dose_gy, record.spacing_mm, record.provenance
  )


def _write_rtdose(path: pathlib.Path, asked: Asked) -> None:
  from dvhflax.report import prediction

  if asked.kind == 'step':
    assert asked.step is not None
    prediction.write_rtdose(
      str(path), asked.session, asked.step, _placed(asked), 32
    )
    return
  prediction.write_other_rtdose(
    str(path),
    asked.session,
    asked.dose_gy,
    _placed(asked),
    'dose of a plan' if asked.kind == 'plan' else 'deliverable dose',
    asked.number if asked.kind == 'plan' else None,
  )
