"""The library behind the stages and commands, in ten rooms.

At the right, what each room is mainly for; dvc.yaml lists all rooms that a stage imports from, directly or by
another room, and runs it again when anything in one of them changes. Each room's own docstring says which
others it may import, all of them further down.

    release      versions, stages, evidence, champion and challenger    flows.promote, gate
    inference    a shipped model on new images                          predict, score, drift
    artifacts    the exported files: write, run, verify                 export, latency
    reporting    charts, thumbnails, templates, Markdown                report
    evaluation   metrics, intervals, slices, robustness, gates          evaluate, gate, verdict
    training     the classifier, and how it is fitted                   train
    validation   scan, image quality, duplicates, checks                validate, digits
    backbones    pretrained networks, and how TensorFlow is set up      train, build
    data         images, manifest, splits, shards                       build, validate
    base         errors, files, paths, parameters, a process's end      all

tests/test_structure.py holds the rooms and dvc.yaml to this. docs/architecture.md draws it, docs/extending.md
says what to touch for the usual changes.
"""
