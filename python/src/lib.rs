//! The Python that runs in child processes, and how they are run.
