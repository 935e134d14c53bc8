"""The README's picture of the viewer: `python -m tests.browser.picture GALLERY.html OUT.png`."""

import shutil
import sys
from pathlib import Path

from PIL import Image

from . import pages


def main(gallery, out):
    from playwright.sync_api import sync_playwright  # this module is looked at where it is not installed, too

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=pages.FLAGS)
        page = browser.new_page(viewport={"width": 1180, "height": 1000})
        page.goto(Path(gallery).absolute().as_uri())
        page.locator(".dws-viewer option").nth(3).wait_for(state="attached")
        page.locator('[data-is="photo"]').select_option("1")
        page.wait_for_timeout(1000)
        page.screenshot(path=out)
        browser.close()
    Image.open(out).convert("P", palette=Image.Palette.ADAPTIVE, colors=192).save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
