import tasks  # noqa: F401 (first: nothing that a test imports calls home)
