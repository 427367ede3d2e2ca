"""Prompts: from a template, a query and passages to messages and token ids."""
