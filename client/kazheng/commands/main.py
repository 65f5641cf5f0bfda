"""The `kazheng` command. Subcommands are loaded when used, so that help is there at once."""

import importlib
import sys
from typing import Any, NamedTuple

import click


class _Entry(NamedTuple):
    module: str
    help: str


_SECTIONS: dict[str, dict[str, _Entry]] = {
    "Run it": {
        "up": _Entry("up", "Run everything on this machine until Ctrl-C."),
        "down": _Entry("up", "Stop what `kazheng up` runs."),
        "status": _Entry("up", "Show what runs here."),
        "quotas": _Entry("quotas", "Show what each account may still do, and who waits for it."),
        "usage": _Entry("usage", "Show how many calls were made, and what they cost."),
        "jobs": _Entry("jobs", "Push or end waiting jobs by hand."),
        "doctor": _Entry("doctor", "Find out what is wrong, and what to do."),
    },
    "Use it": {
        "submit": _Entry("submit", "Recognize pictures, or a folder of them, and show or save their fields."),
        "batches": _Entry("batches", "List, follow, save, cancel and retry batches."),
        "webhooks": _Entry("webhooks", "Where events are sent, and what came of it."),
        "listen": _Entry("listen", "Bring events to a program on this machine, signed like webhooks."),
        "trigger": _Entry("listen", "Make an event to try receivers with."),
    },
    "Set it up": {
        "keys": _Entry("keys", "Make, list and revoke API keys."),
        "accounts": _Entry("accounts", "Accounts at the OCR provider, and their quotas."),
        "migrate": _Entry("migrate", "Bring the database up to date and make the default account."),
        "sandbox": _Entry("sandbox", "Run only the sandbox, a local server that speaks Baidu's protocol."),
    },
}
_COMMANDS = {name: entry for section in _SECTIONS.values() for name, entry in section.items()}

_EPILOG = """\b
Start here:
  kazheng up --demo
      Everything on this machine, with sample pictures; no account needed.
  kazheng submit card.jpg --type id_card
      The fields of an ID card, from a second terminal.
  kazheng submit *.jpg --type bank_card --json > cards.jsonl
      Many pictures, one line of JSON each.
  kazheng submit ./scans --type id_card --recursive --out results.xlsx
      A folder of any size; run it again to go on where it stopped.
  kazheng listen --forward-to http://127.0.0.1:3000/hook
      Webhooks for a program on this machine; `kazheng trigger job.succeeded` sends one.
  kazheng keys create --client shop
      An API key for another application.
  kazheng doctor
      When something does not work.

Settings are KAZHENG_… variables, in the environment or in a file .env; .env.example lists them all.
`kazheng COMMAND --help` tells more."""


class _LazyGroup(click.Group):
    """Loads a subcommand when it is used, and turns failures into a paragraph."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"kazheng.commands.{_COMMANDS[cmd_name].module}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, section in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in section.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            # Loaded only now: it knows the errors of all parts, and so imports most of them.
            paragraph = importlib.import_module("kazheng.commands.failures").explain(error)
            if paragraph is None:
                raise
            click.secho(paragraph, fg="red", err=True)
            sys.exit(2)


@click.group(cls=_LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kazheng", message="kazheng %(version)s")
def main() -> None:
    """Kazheng reads photos of identity documents: hand over a picture, get its fields back."""
