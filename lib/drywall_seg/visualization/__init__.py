"""Pictures of what the other parts made."""
