"""The small models of the panels Meaning and Programs."""
