"""The gravmap group with a single command of the test's own."""

import click

from gravmap_cli.main import CommandGroup
from gravmap_cli.session import LOG_OPTIONS, WORKSPACE_OPTION, Session


def group_of(command):
    """A group with workspace, log options and environment variables as `gravmap`, whose one command is `command`."""

    class Group(CommandGroup):
        def list_commands(self, ctx):
            return [command.name]

        def get_command(self, ctx, name):
            return command if name == command.name else None

    @click.group(cls=Group, context_settings={"auto_envvar_prefix": "GRAVMAP"})
    @WORKSPACE_OPTION
    @LOG_OPTIONS
    @click.pass_context
    def group(ctx, workspace, verbose, quiet):
        ctx.obj = Session.start(workspace, verbose, quiet)

    return group
