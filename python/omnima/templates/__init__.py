"""Chat templates: Jinja of strangers, rendered in a sandbox, in a process of its own."""
