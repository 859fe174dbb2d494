# The hooks every shipped config has, beside its toolbox's own. A config takes them with
# `default_hooks = {{_base_.bocb_hooks}}`, which merges into the toolbox's default_hooks by name.
bocb_hooks = dict(
    checkpoint=dict(type='bocb_mm.SafeCheckpointHook', interval=1, max_keep_ckpts=2),
    divergence=dict(type='bocb_mm.DivergenceHook'),
    signals=dict(type='bocb_mm.SignalHook'),
    layer_metrics=dict(type='bocb_mm.LayerMetricsHook', interval=10),
    run_record=dict(type='bocb_mm.RunRecordHook'),
    # Switches, off: docs/configs.md says what they change.
    speed=dict(type='bocb_mm.SpeedHook', channels_last=False, tf32=None),
)
