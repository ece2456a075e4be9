"""The client: registers what this node offers, and reads what others do."""
