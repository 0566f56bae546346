"""Writes an excerpt of a store: small enough to go along with a network.

It has every record and every DVH vector of the cohort, but the masks of a few
patients only, and of their doses the first or none. What asks for more gets a
`CohortError` that says what there is. The identity of a cohort follows from its
records, so that an excerpt has that of the whole: a network that was trained on
the one goes with the other.
"""

from collections.abc import Sequence
import dataclasses
import json
import os

from dvhflax import errors, files
from dvhflax.cohort import arrays
from dvhflax.cohort.schema import Excerpt
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.writer import METADATA


def write_excerpt(
  cohort: Cohort, path: str, patients: Sequence[int], plans: int = 0
) -> None:
  """Writes an excerpt.

  Args:
    cohort: the whole.
    path: of a folder that is not there yet.
    patients: whose masks are in it.
    plans: number of doses of each of them, at most as many as there are.

  Raises:
    CohortError: for a cohort with CTs, which an excerpt has none of, and one
      that is older than what the Gy of a prediction follow from.
  """
  if cohort.metadata.ct:
    raise errors.CohortError(
      f'{cohort.path} has CTs: there are no excerpts of such a cohort'
    )
  if cohort.normalisation.kind == 'target_mean' and not all(
    p.coverage_gy for p in cohort.patients
  ):
    raise errors.CohortError(
      f'{cohort.path} is of an older version, which kept no coverage of its '
      'plans: build it again'
    )
  metadata = dataclasses.replace(
    cohort.metadata,
    excerpt=Excerpt(tuple(cohort.patients[p].id for p in patients), plans),
  )
  os.makedirs(path)
  for name, (shape, dtype, chunk) in arrays.layout(
    metadata, len(cohort.patients)
  ).items():
    # The DVHs are in one file, not in one a patient.
    array = arrays.open_array(
      path, name, shape, dtype, shape if name == 'dvh' else chunk
    )
    if name == 'dvh':
      array.write(cohort.dvh).result()
      continue
    for p in patients:
      if name == 'masks':
        array[p].write(cohort.masks(p)).result()
        continue
      for n in range(min(plans, cohort.patients[p].plans)):
        array[p, n].write(cohort.read([p], [n])[1][0]).result()
  text = json.dumps(metadata.to_json(), separators=(',', ':'))
  files.write_text(os.path.join(path, METADATA), text + '\n')
