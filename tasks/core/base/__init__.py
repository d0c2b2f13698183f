"""What every process depends on: errors, files, paths, parameters, how a stage starts and ends.

Imports no other room. Every stage runs again when it changes, so little lives here.
"""
