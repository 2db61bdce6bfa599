"""The lab's own programs; what a production cluster needs is not here."""
