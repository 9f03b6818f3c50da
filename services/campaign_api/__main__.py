"""Run campaign_api: `python -m services.campaign_api`."""

import sys

from runtime.signals import hold_signals


def main() -> int:
    """Run the service to its end and return the process's exit status."""
    hold_signals()
    # Loaded only now: a signal that comes while modules load is held, not fatal.
    from runtime.process import run
    from services.campaign_api.app import Application
    from services.campaign_api.settings import CampaignApiSettings

    return run(CampaignApiSettings, Application)


if __name__ == "__main__":
    sys.exit(main())
