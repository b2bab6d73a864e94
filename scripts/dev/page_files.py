"""Place the explorer page's third-party files: `page_files.py SOURCE TARGET`.

SOURCE is a folder into which the wheel of `requirements-page.lock` was unpacked by pip. Standard
library only: the image runs this before anything is installed.
"""

import hashlib
import sys
from pathlib import Path

_CHART = "akquant_lwc/assets/lightweight-charts.standalone.production.js"
_CHART_SHA256 = "c0992580867c4912cc9385b3c2728315bcc1a76c7f1087dca908430fccdf31d7"

# The licence allows passing the work on with its notice (section 4). The file itself begins with
# the same copyright line.
_NOTICE = """\
The file lightweight-charts.js beside this one is

    TradingView Lightweight Charts(TM) 5.2.0
    Copyright (c) 2026 TradingView, Inc.  https://www.tradingview.com/

unchanged, under the Apache License, Version 2.0. You may obtain a copy of the license at

    https://www.apache.org/licenses/LICENSE-2.0

Its source is at https://github.com/tradingview/lightweight-charts. The page shows its attribution
logo, which links to TradingView.
"""


def place(source: Path, target: Path) -> None:
    """Copy the chart and its notice.

    Raises:
        SystemExit: The chart is not the file that was reviewed.
    """
    content = (source / _CHART).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != _CHART_SHA256:
        message = f"{_CHART} has the sha256 {found}, expected {_CHART_SHA256}"
        raise SystemExit(message)
    target.mkdir(parents=True, exist_ok=True)
    (target / "lightweight-charts.js").write_bytes(content)
    (target / "NOTICE.txt").write_text(_NOTICE)


if __name__ == "__main__":
    place(Path(sys.argv[1]), Path(sys.argv[2]))
