"""What to do where an operator has no stand-in."""

COMPILE = (
    'MMCV_OPS=1 bash tools/setup_env.sh (in an environment of your own: pip uninstall -y mmcv-lite '
    '&& MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0)'
)
