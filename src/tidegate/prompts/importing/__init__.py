"""
Prompts of other tools become folders of ours: one file per format, each `read(…) -> Outcome`.

A reader runs nothing, fetches nothing, reads no environment and opens no file outside the folder of the one it was
given. What a format can say and an artifact can not is never dropped: it becomes an Item of the outcome.
"""
