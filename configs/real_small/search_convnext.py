# The search of docs/search.md, modern network: a ConvNeXt of 2-2-4-2 blocks, 24 to 192 wide.
_base_ = './search_resnet.py'
model = dict(
    backbone=dict(_delete_=True, type='bocb_mm.CNX-XS'),
    head=dict(in_channels=192),
)
