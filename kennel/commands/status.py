"""`kennel status`."""

from kennel.commands.common import AsJson, Stage, one_sentence


def status(stage: Stage = "Dev", as_json: AsJson = False) -> None:
    """Show stacks, pipeline runs, models and the endpoint, and say what to do next.

    [bold]Examples[/]

      kennel status

      kennel status --stage Prod --json
    """
    with one_sentence():
        from kennel.aws import client
        from kennel.show import show_status
        from kennel.status import gather

        show_status(gather(stage, client), as_json=as_json)
