"""Every field of the configuration, with its default.

The defaults are the paper's (Ma et al. 2021); `configs/` changes a few of
them. A field that nothing reads is not in here.
"""

import ml_collections
from ml_collections import config_dict

from dvhflax.sites import PROSTATE


def default() -> ml_collections.ConfigDict:
  """The paper's system: 97 simulated patients, 10 plans, 128x128x64."""
  config = ml_collections.ConfigDict()

  # Seed of initialisation, sampling and dropout.
  config.seed = 0
  # Samples an update, over all devices of all hosts.
  config.batch_size = 3
  # Parts a device takes its samples in, one after another: less memory. Batch
  # norm then is over a part.
  config.batch_parts = 1
  # An epoch is as many samples as the training patients have plans.
  config.epochs = 300
  # Stop after this many updates; 0: after the epochs.
  config.max_steps = 0
  # Save every so many epochs; the latest two and the best are kept.
  config.checkpoint_every_epochs = 1

  config.cohort = cohort = ml_collections.ConfigDict()
  # Directory of the cohort store; built on first use if it does not exist.
  cohort.path = 'cohorts/prostate'
  # What it is built from: `simulated`, `openkbp`, `dicom`, `nifti`, or `store`,
  # another cohort, whose patients get more plans.
  cohort.source = 'simulated'
  # openkbp: the folder of the challenge's CSV files. dicom, nifti: the folder
  # that holds all patients, at any depth. store: the other cohort.
  cohort.raw = config_dict.placeholder(str)
  # simulated, dicom, nifti: the structures, in the order of the mask channels.
  # One is `body`; those that begin with PTV are targets, in ascending order of
  # prescription. `sites/` has those that are known, others need `names`.
  cohort.structures = tuple(s.name for s in PROSTATE.structures)
  # dicom, nifti: JSON file of patterns for names that are not known here,
  # `{"rectum": ["rectum_v2", "rect.*"], ...}`; see `io/names.py`.
  cohort.names = config_dict.placeholder(str)
  # dicom, nifti: prescription in Gy of plans whose RTPLAN is missing;
  # by default the mean dose of their target.
  cohort.prescription_gy = config_dict.placeholder(float)
  # openkbp, dicom, nifti: keep the CTs of the patients that have one; a store's
  # are kept always. Those that have none are planned as if they were of water.
  cohort.ct = False
  # dicom: add the doses of single beams where a plan's total is not there.
  cohort.sum_beams = False
  # dicom: likewise for the doses of fraction groups; that of one fraction
  # counts for all fractions of its group.
  cohort.sum_fractions = False
  # dicom: the plans of a structure set are the phases of one course, not
  # alternatives; add their doses and prescriptions.
  cohort.sum_plans = False
  # dicom: where structures end, since contours do not tell. `rounded`: where
  # the outlines close as they go on, half a slice beyond the outermost contour
  # if they are blunt; `half_slice`: always there, all contours as slabs;
  # `outermost`: the same, cut off at the outermost contours. Planning systems
  # differ in this; see docs/import.md.
  cohort.contour_ends = 'rounded'
  # Pareto-optimal plans that are computed for each patient, after `planning`;
  # 0: the source's own plans only.
  cohort.plans = 10
  # The same for validation and test patients; 0: as many as the others. With
  # many, such as 300, the plan nearest to a wish is near indeed: see
  # `evaluation`.
  cohort.held_out_plans = 0
  # Whether plans that the source has are left out for the computed ones. Else
  # plans of another protocol, clinical ones too, are refused: a cohort holds
  # one Pareto set a patient.
  cohort.replace_plans = False
  # simulated: number of patients, seed.
  cohort.patients = 97
  cohort.seed = 0
  # Doses are stored as `float16`, half as large and off by up to 1 in 2048 of
  # themselves: 0.034 Gy from 70 Gy on where 1.0 stands for 70 Gy. `float32`
  # rounds no more than the computation before it, 1e-4 Gy.
  cohort.dose_dtype = 'float16'
  # Voxels along x, y, z, and but for openkbp their size in mm.
  cohort.grid = (128, 128, 64)
  cohort.spacing_mm = (3.75, 2.5, 3.0)
  # Patients set apart; the rest train. The paper's 77 include validation.
  cohort.validation_patients = 7
  cohort.test_patients = 20
  # What 1.0 of a dose stands for: `target_mean`, the plan's own mean dose in
  # the highest target (the paper's), or `prescription`, so that the Gy of a
  # prediction follow exactly; see `normalisation.py`.
  cohort.normalisation = 'target_mean'
  # The DVH vector: `volume_at_dose` or `dose_at_volume`; elements a
  # structure; last dose level in fractions of the reference dose.
  cohort.dvh_kind = 'volume_at_dose'
  cohort.dvh_points = 32
  cohort.dvh_max_dose = 1.2

  # The planning protocol: beams, targets, organs at risk and their weights; its
  # fields are described in `sites/protocol.py`.
  config.planning = config_dict.ConfigDict(PROSTATE.protocol.to_dict())

  config.model = model = ml_collections.ConfigDict()
  # How the wish enters: `bottleneck` (figure 3), `film` (it scales and shifts
  # every layer of the decoder), `matched` (as a dose that has the desired DVH),
  # `film+matched`, `bottleneck+matched`; `none` is the anatomy-only network.
  model.conditioning = 'bottleneck'
  # What ranks the voxels of the matched dose: `geometry`, or the `first_dose`
  # of an anatomy-only network, which is trained first; see `first_dose`.
  model.prior = 'geometry'
  # Voxels an axis that enter the network together, as channels, and whose doses
  # come out together; 1: voxel by voxel, 2: several times faster.
  model.patch = 1
  # Whether the dose is smoothed over neighbouring voxels, 1 2 1 along each
  # axis: no beam delivers what alternates from voxel to voxel.
  model.smoothing = False
  # Whether the DVH is standardised by the training set's mean and spread.
  model.standardise_dvh = False
  # `batch` (synchronised over devices), `group`, or `mixed`: group norm on
  # feature maps of at most 64 voxels, batch norm on the others.
  model.norm = 'batch'
  # Channels at full size; doubled a level, up to the maximum.
  model.base_channels = 16
  model.max_channels = 128
  # Dropout rate of the deepest level, equation (7).
  model.dropout = 0.2
  # Coplanar beams whose open fields are one more input; 0: masks alone.
  model.beams = 0
  # `native` (compiled, CPUs), `im2col` (pure JAX, CPUs), `lax` (XLA's own), or
  # `auto`, which picks the fastest there is.
  model.convolution = 'auto'
  # Compute normalised and rectified features once more for the gradient instead
  # of keeping them: a sixth less memory at full size, and no slower there.
  model.remat = True
  # Type of the computation: `float32` or `bfloat16`.
  model.dtype = 'float32'

  # The anatomy-only network of `model.prior = 'first_dose'`: its updates. All
  # else is as for the network that it serves.
  config.first_dose = first_dose = ml_collections.ConfigDict()
  first_dose.max_steps = 300

  config.optimizer = optimizer = ml_collections.ConfigDict()
  # `inverse_time`, equation (6), or `cosine`, which falls along half a cosine
  # to a hundredth at the last update.
  optimizer.schedule = 'inverse_time'
  # The learning rate that it begins with; of equation (6) the decay an update.
  optimizer.learning_rate = 1e-3
  optimizer.decay = 0.002
  # Updates in which it rises from 0 before that.
  optimizer.warmup_steps = 0
  # A gradient whose norm is greater is shortened to it; 0: none is.
  optimizer.clip_norm = 0.0
  # Predictions are by a moving average of the parameters, of this decay an
  # update, such as 0.999; 0: by the last ones.
  optimizer.average = 0.0

  config.loss = loss = ml_collections.ConfigDict()
  # Weight of the error within each structure, beside equation (5), the error
  # over the whole grid, in which what a wish changes is a small part.
  loss.structure_weight = 0.0
  # Weight of the error of each structure's mean dose.
  loss.mean_dose_weight = 0.0
  # Weight of the error of each structure's maximum dose.
  loss.max_dose_weight = 0.0
  # Weight of the error of the dose's differences from voxel to voxel.
  loss.gradient_weight = 0.0

  config.data = data = ml_collections.ConfigDict()
  # Share of the training wishes that are a plan of the patient's own; and of
  # those that are such a plan's DVH, bent through random points as physicians
  # ask for. The others are plans of any patient of the split, as in the paper.
  data.own_wish_share = 0.0
  data.bent_wish_share = 0.0
  # Share of the training samples that are mirrored, left for right.
  data.mirrored_share = 0.0
  # Wishes a validation patient, the same in every epoch; shares of theirs.
  data.validation_wishes = 10
  data.validation_own_wish_share = 0.0
  data.validation_bent_wish_share = 0.0
  # Where the training and validation patients are: on every `device`, so that
  # a step looks its samples up itself; in host `memory`; in the `store`, read
  # batch by batch; `auto`, the first of these that is large enough.
  data.placement = 'auto'
  # Batches made ready ahead of the step.
  data.read_ahead = 4

  config.evaluation = evaluation = ml_collections.ConfigDict()
  # K': wishes a test patient; shares of theirs. Table 1 of the paper has both
  # at 0, whatever was trained on.
  evaluation.wishes = 200
  evaluation.own_wish_share = 0.0
  evaluation.bent_wish_share = 0.0
  # Wishes predicted at once.
  evaluation.batch_size = 4
  # Patients that are evaluated: `test`, or `validation` to make choices by.
  evaluation.split = 'test'
  # Table 1 is given a second time with labels among so many of each patient's
  # plans, and how far these are off: the floor of few plans; 0: not.
  evaluation.label_plans = 10
  # The most plans of a patient's own that are wished for to measure how well
  # the network obeys, see docs/obedience.md; 0: that is not measured.
  evaluation.obedience_wishes = 36
  # Of these predictions, those compared with the closest deliverable dose, over
  # all patients; some seconds each.
  evaluation.mimicked = 0
  return config
