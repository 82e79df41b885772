"""The commands that speak to a server over its API: a module for each noun, with its Typer app.

They are imported at every start of `runlane`: at their top they import Typer and nothing heavy.
"""
