"""The model index: every experiment once, in the form that mim and mmengine read."""

import yaml

from bocb_mm import facts, shipped
from bocb_mm.facts import zoo


def test_every_experiment_of_the_paper_is_in_it_and_nothing_else():
    found = {e.config for e in zoo.experiments(shipped.configs())}
    wanted = {n for n in shipped.configs() if not n.startswith(('quickstart/', 'real_small/'))}
    assert found == wanted and len(found) == 44


def test_the_metafile_is_yaml_of_unique_models_with_their_files(root):
    content = yaml.safe_load(zoo.metafile(shipped.configs()))
    names = [model['Name'] for model in content['Models']]
    assert len(set(names)) == len(names) == 44
    collections = {c['Name'] for c in content['Collections']}
    assert collections == {name for name, row in facts.BACKBONES.items() if row.in_paper}
    for model in content['Models']:
        assert model['In Collection'] in collections
        assert (root / model['Config']).is_file()
    assert yaml.safe_load(zoo.model_index()) == {'Import': ['configs/metafile.yml']}


def test_the_backbone_of_an_experiment_is_the_one_it_trains():
    from bocb_mm.backbones import get_spec
    from bocb_mm.config.edit import load_config

    for experiment in zoo.experiments(
        ['pretrain/imagenet/r-50_rsb-a1', 'topdown_vgg13bn_sgd_pretrain']
    ):
        assert (
            get_spec(load_config(experiment.config).model.backbone.type).name == experiment.backbone
        )
