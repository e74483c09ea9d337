"""The runtime inside voice assistants: one event schema, thin adapters, no judgement of their own."""
