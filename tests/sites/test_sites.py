"""The sites of the package: each is consistent, and fits a configuration."""

import numpy as np
import pytest

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.io import names
from dvhflax.patient import Structure
from dvhflax.sites import HEAD_AND_NECK, SITES, Protocol
from dvhflax.sources.anatomy import sample_anatomy
from dvhflax.sources.simulated import Simulated

SIMULATED = [site for site in SITES if site.shapes]


@pytest.mark.parametrize('site', SITES, ids=lambda site: site.name)
def test_a_site_is_consistent(site):
  known = {structure.name: structure.role for structure in site.structures}
  targets = [s.name for s in site.structures if s.role == 'target']
  assert list(known.values()).count('body') == 1
  assert targets == site.protocol.ascending
  assert {known[name] for name in site.protocol.oars} == {'oar'}
  # What a config names by its name alone has the same role.
  assert site.structures == tuple(map(Structure.from_name, known))
  assert set(known) <= {organ.name for organ in site.organs}
  match = names.match([organ.name for organ in site.organs], list(known))
  assert set(match.chosen) == set(known)


@pytest.mark.parametrize('site', SIMULATED, ids=lambda site: site.name)
def test_a_simulated_site_draws_all_its_structures(site):
  masks = sample_anatomy(
    np.random.default_rng(0), (32, 32, 16), (15.0, 10.0, 12.0), site
  ).masks
  assert all(masks[structure.name].any() for structure in site.structures)


def test_a_protocol_without_its_defaults_is_the_same():
  changed = HEAD_AND_NECK.protocol.changed()
  assert set(changed) == {'name', 'beams', 'gap', 'targets', 'oars'}
  assert Protocol.from_dict(changed) == HEAD_AND_NECK.protocol


def test_only_what_a_site_simulates_can_be_asked_for():
  config = config_lib.default()
  config.cohort.structures = (*config.cohort.structures, 'femoral_head_left')
  assert Simulated(config).structures[-1].name == 'femoral_head_left'
  config.cohort.structures = (*config.cohort.structures, 'spleen')
  with pytest.raises(errors.ConfigError, match='prostate patients have no spl'):
    Simulated(config)
  with pytest.raises(errors.ConfigError, match='cannot be simulated'):
    Simulated(config, HEAD_AND_NECK)
