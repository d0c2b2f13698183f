import tasks  # noqa: F401 (first: nothing that a benchmark imports calls home)
