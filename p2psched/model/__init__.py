"""Layer 0, words: ids, jobs, tasks, messages, commands, limits, errors. Imports no other layer."""
