"""DVHs of all structures by dicompyler-core; see dicom_case.py.

python benchmarks/dicom_case_dicompyler.py RTSTRUCT RTDOSE GY OPTIONS

OPTIONS is JSON, arguments of `dvhcalc.get_dvh`. Prints, last of all, volume in
cc, D95, D50, D2 and mean in Gy, and the cc that receive GY, by name. Needs an
environment with dicompyler-core (and scikit-image for an
`interpolation_resolution`).
"""

import json
import sys

from dicompylercore import dicomparser, dvhcalc


def main(structure_set, dose, gy, options):
  found = {}
  structures = dicomparser.DicomParser(structure_set).GetStructures()
  for number, structure in structures.items():
    curve = dvhcalc.get_dvh(structure_set, dose, number, **json.loads(options))
    if not curve.volume:
      continue
    doses = [float(curve.statistic(f'D{x}').value) for x in (95, 50, 2)]
    low = float(curve.volume_constraint(float(gy), 'Gy').value)
    found[structure['name']] = [
      float(curve.volume), *doses, float(curve.mean), low,
    ]  # fmt: skip
  print(json.dumps(found))


if __name__ == '__main__':
  main(*sys.argv[1:])
