"""The library behind the stages and commands, in ten rooms.

A stage finds its library in the room of its name; `base`, `data` and `backbones` serve several. Imports go
down only:

    release      versions, stages, evidence, champion and challenger    flows.promote, gate
    inference    a shipped model on new images                          predict, score, drift
    artifacts    the exported files: write, run, verify                 export, latency
    reporting    charts, thumbnails, templates, Markdown                report
    evaluation   metrics, intervals, slices, robustness                 evaluate, gate, verdict
    training     the classifier, and how it is fitted                   train
    validation   scan, image quality, duplicates, checks                validate
    backbones    pretrained networks, and how TensorFlow is set up
    data         images, manifest, splits, shards                       build
    base         errors, files, paths, parameters, a process's end

tests/test_structure.py holds the rooms and dvc.yaml to this: a stage depends on whole rooms, so it runs again
when anything in a room that it imports from changes.
"""
