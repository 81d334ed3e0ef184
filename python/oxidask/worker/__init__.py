"""The executor: runs the tasks of one worker in threads, beside a Rust parent that does everything else.

``executor`` starts it, ``tasks`` runs tasks, ``control`` answers the parent, ``values`` serialises, ``facade`` is
what code inside a task gets for its ``Worker``. Nothing here imports ``distributed`` before a task needs it: that
import takes a second and 60 MB.
"""
