"""The page of `cyclemimic gallery --serve` as a Space on the Hub; README.md says which variables to set."""

import os
import sys

from cyclemimic import cli


def flags(variables: dict[str, str]) -> list[str]:
    """The command line that the Space's variables ask for."""
    missing = [name for name in ("TOKENIZER", "DATA") if not variables.get(name, "").strip()]
    if missing:
        sys.exit(f"set {' and '.join(missing)} in the variables of the Space")
    interval_s = variables.get("INTERVAL_S", "1.0")
    return [
        *("gallery", "--serve", "--tokenizer", variables["TOKENIZER"], "--data", *variables["DATA"].split()),
        *("--interval_s", interval_s, "--min_interval_s", str(float(interval_s) / 2)),
        *("--max_pairs", variables.get("MAX_PAIRS", "200")),
        # A Space is a container behind the Hub's own server: it must listen to that.
        *("--host", "0.0.0.0", "--port", variables.get("GRADIO_SERVER_PORT", "7860")),
    ]


if __name__ == "__main__":
    sys.exit(cli.main(flags(dict(os.environ))))
