# %% [markdown]
# # A tour
#
# From simulated patients to a tuned dose, with public names only. Everything
# is small, so that it takes two minutes on two cores: voxels of 10 to 15 mm,
# fourteen patients and a network that is trained for 240 updates. The README
# has the errors of a larger one.

# %%
import matplotlib.pyplot as plt
import numpy as np

import dvhflax

# %% [markdown]
# ## A cohort
#
# A configuration holds every choice. This one starts from a packaged
# configuration and shrinks it. The cohort is simulated and planned when it is
# first asked for, and opened from then on.

# %%
config = dvhflax.config.load('prostate:small')
config.cohort.path = 'cohorts/tour'
config.cohort.patients = 14
config.cohort.validation_patients = 1
config.cohort.test_patients = 3
config.cohort.plans = 6
config.cohort.held_out_plans = 0  # as many as the others
config.cohort.grid = (32, 32, 16)
config.cohort.spacing_mm = (15.0, 10.0, 12.0)
cohort = dvhflax.open_or_build_cohort(config)

names = [structure.name for structure in cohort.structures]
print('structures:', *names)
for split in ('train', 'validation', 'test'):
  print(f'{split}:', *(cohort.patients[i].id for i in cohort.split(split)))

# %% [markdown]
# ## A patient
#
# Masks are `[X, Y, Z, S]`, doses `[plans, X, Y, Z]` in fractions of a
# reference dose, here the prescription. The plans of a patient are
# Pareto-optimal: what spares the rectum costs elsewhere.

# %%
patient = int(cohort.split('test')[0])
record = cohort.patients[patient]
masks, doses = cohort.masks(patient), cohort.doses(patient)
print(record.id, masks.shape, doses.shape, f'{record.prescription_gy:g} Gy')

voxel_cc = np.prod(record.spacing_mm) / 1000
for s, name in enumerate(names):
  inside = masks[..., s] > 0
  mean_gy = doses[:, inside].mean(1) * record.prescription_gy
  means = '  '.join(f'{gy:4.1f}' for gy in mean_gy)
  print(f'{name:8} {inside.sum() * voxel_cc:6.0f} cc, mean Gy: {means}')

# %% [markdown]
# ## Planning
#
# The planner takes any masks. Each plan comes with its gap: by how much a
# better one could lower its objective at most.

# %%
plans = dvhflax.plan_patient(
  {name: masks[..., s] for s, name in enumerate(names)},
  record.spacing_mm,
  config.cohort.plans,
  dvhflax.config.protocol(config),
)
print('dose', plans.dose_gy.shape, 'gaps', np.round(plans.gap, 4))

# %% [markdown]
# ## Training
#
# The U-Net gets masks and a desired DVH. For each sample the desired DVH is
# drawn from the plans of any training patient, or of the patient's own, and the
# label is the patient's own plan whose DVH is nearest.

# %%
config.epochs = 12
config.evaluation.wishes = 8
state = dvhflax.train(config, cohort, 'runs/tour')
print('updates:', int(state.step))

# %% [markdown]
# ## A first dose, a wish, a tuned dose
#
# The first dose is that for the mean DVH of the training plans. Points bend
# its DVH, and the network predicts the dose for the bent one.

# %%
session = dvhflax.Session.open('runs/tour', record.id)
first = session.first_dose()
tuned = session.tune('rectum mean <= 20 Gy')
for label, step in (('first', first), ('tuned', tuned)):
  achieved = step.metrics['achieved']
  means = '  '.join(f'{n} {row["mean"]:.1f}' for n, row in achieved.items())
  print(f'{label}, mean Gy: {means}  PTV D95 {achieved["PTV"]["D95%"]:.1f}')

# %% [markdown]
# Solid: the tuned dose; dashed: the first; dotted: the desired DVH, which is
# the first one bent. The rectum's mean dose comes near to what was asked for,
# and the PTV pays for it: its D95 falls further below the prescription. The
# network is a small one.

# %%
levels_gy = cohort.dvh_spec.levels * record.prescription_gy
figure, axes = plt.subplots(figsize=(6, 3.5), layout='constrained')
for s, name in enumerate(names):
  lines = ((tuned.dvh, '-'), (first.dvh, '--'), (tuned.desired_dvh, ':'))
  for dvh, style in lines:
    axes.plot(levels_gy, 100 * dvh[s], style, color=f'C{s}')
  axes.plot([], color=f'C{s}', label=name)
axes.set(xlabel='dose (Gy)', ylabel='volume (%)')
axes.legend()
figure.savefig('tour.png', dpi=100)
plt.close(figure)

# %% [markdown]
# ![DVHs of the first, the desired and the tuned dose](tour.png)
#
# ## Evaluation
#
# One line predicts for all test patients and compares with their plans. It
# also writes figures and samples to `runs/tour/evaluation`. Its first lines
# matter most: given the wishes of other samples the network errs several times
# as much in bladder and rectum, so it responds to the wish; and the slope says
# how far it follows where the wish is a plan of the patient's own.

# %%
print(dvhflax.evaluate('runs/tour'))
