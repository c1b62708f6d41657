"""A table of predictions, measured values and scores to how well the scores find the errors."""

import sys

from jobs.cli import main, say
from pipeline.trust.settings import TrustSettings


def trust(settings: TrustSettings) -> None:
    """Judge the scores, and say what they are worth."""
    from pipeline.trust.run import run_trust

    results = run_trust(settings)
    say(
        *results["text"],
        f"outputs    {settings.output_dir}: trust.txt, trust.json, retention.png",
    )


if __name__ == "__main__":
    sys.exit(main(TrustSettings, trust, "trust"))
