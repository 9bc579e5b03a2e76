"""The page of `cyclemimic gallery --serve` as a Space on the Hub; README.md says which variables to set."""

import os
import sys

from cyclemimic import cli


def flags(variables: dict[str, str]) -> list[str]:
    """The command line that the Space's variables ask for."""
    # Set to nothing is as not set.
    given = {name: value.strip() for name, value in variables.items() if value.strip()}
    missing = [name for name in ("TOKENIZER", "DATA") if name not in given]
    if missing:
        sys.exit(f"set {' and '.join(missing)} in the variables of the Space")
    times = []
    if interval_s := given.get("INTERVAL_S"):
        try:
            times = ["--interval_s", interval_s, "--min_interval_s", str(float(interval_s) / 2)]
        except ValueError:
            sys.exit(f"INTERVAL_S must be seconds, got {interval_s}")
    return [
        *("gallery", "--serve", "--tokenizer", given["TOKENIZER"], "--data", *given["DATA"].split()),
        *times,
        *("--max_pairs", given.get("MAX_PAIRS", "200")),
        # A Space is a container behind the Hub's own server: it must listen to that.
        *("--host", "0.0.0.0", "--port", given.get("GRADIO_SERVER_PORT", "7860")),
    ]


if __name__ == "__main__":
    sys.exit(cli.main(flags(dict(os.environ))))
