"""The work: functions from typed values and paths to files. Nothing here knows who schedules it."""
