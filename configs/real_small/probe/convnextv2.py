# ConvNeXt V2: the ConvNeXt with global response normalisation in place of layer scale.
_base_ = './convnext.py'
model = dict(backbone=dict(use_grn=True, layer_scale_init_value=0.0))
default_hooks = dict(run_record=dict(backbone='CNXV2-3XS'))
