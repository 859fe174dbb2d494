"""A real headless Chromium, where there is one."""

import shutil

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
DRIVER = shutil.which('chromedriver')
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason='no chromium and chromedriver (apt-get install chromium chromium-driver)'
)  # fmt: skip
FLAGS = [
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-dev-shm-usage',
    '--window-size=1280,900',
]
# Width, height and whether it is a phone.
SIZES = {'desktop': (1280, 900, False), 'phone': (375, 812, True)}


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f'--user-data-dir={tmp_path_factory.mktemp("chromium")}']:
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def resize(driver, size):
    """Give the page a width and a height, as a desktop or a phone has them."""
    width, height, mobile = SIZES[size]
    driver.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': mobile},
    )
