"""Shared by every room: checks of outside values, files, console, progress. Imports nothing from the rooms above."""
