"""What a trial of a search adds to a training."""


def test_hooks_a_search_relies_on_are_added_where_they_are_missing():
    from mmengine.config import ConfigDict

    from bocb_mm.launch import trial

    cfg = ConfigDict(default_hooks={'checkpoint': {'type': 'CheckpointHook', 'interval': 5}})
    trial.guard(cfg)
    assert cfg.default_hooks.checkpoint == {'type': 'bocb_mm.SafeCheckpointHook', 'interval': 5}
    types = [hook['type'] for hook in cfg.default_hooks.values()]
    assert types[1:] == ['bocb_mm.DivergenceHook', 'bocb_mm.SignalHook']
    before = cfg.to_dict()
    trial.guard(cfg)
    assert cfg.to_dict() == before
    cfg = ConfigDict(default_hooks={}, custom_hooks=[{'type': 'bocb_mm.SignalHook'}])
    trial.guard(cfg)
    assert [h['type'] for h in cfg.default_hooks.values()].count('bocb_mm.SignalHook') == 0
